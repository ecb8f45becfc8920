"""Which operator's result another reads, followed through the storages of tensors.

What reaches nobody can be left out. A result is seen where it is written into something that was
there before the step (a parameter, a running mean), read by the host, or alive when the step is
over; but a gradient of the two sides only if an optimizer takes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from ganloss_fast._torch import tree_leaves
from ganloss_fast.bench.profile.ledger import OF_WEIGHTS, Operator

_OVERWRITES = {"zero_", "fill_", "copy_", "normal_", "uniform_", "random_", "_foreach_zero_"}
_EMPTY = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
_SEEN = {"_local_scalar_dense", "equal", "is_nonzero"}  # by the host
_SEEN |= {"native_batch_norm", "cudnn_batch_norm"}  # they move what their schema does not say


@cache
def _name(func: Any) -> str:
    return str(func.overloadpacket).removeprefix("aten.")


def tensors_in(value: Any) -> list[Tensor]:
    return [each for each in tree_leaves(value) if isinstance(each, Tensor)]


@cache
def _mutated(func: Any) -> tuple[int, ...]:
    """Positions of the arguments that it writes."""
    arguments = enumerate(func._schema.arguments)
    return tuple(k for k, a in arguments if a.alias_info is not None and a.alias_info.is_write)


def _mutated_tensors(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Tensor]:
    names = [argument.name for argument in func._schema.arguments]
    found = [args[k] if k < len(args) else kwargs.get(names[k]) for k in _mutated(func)]
    return tensors_in(found)


def _covers_its_storage(tensor: Tensor) -> bool:
    return tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()


class Flow:
    """Of one step."""

    def __init__(self, operators: list[Operator]) -> None:
        self.operators = operators
        self.storages: dict[int, StorageWeakRef] = {}  # kept: no other gets the same number
        self.writers: dict[int, int] = {}  # storage -> the operator that wrote it last
        self.outside: set[int] = set()  # storages from before the step that it writes
        self.unseen: set[int] = set()  # storages that no operator has written so far
        self.seen: set[int] = set()  # operators whose result somebody sees
        self.copied: dict[int, tuple[Any, ...]] = {}

    def key(self, tensor: Tensor) -> int:
        """Of its storage; 0 if it has none."""
        if tensor.layout is not torch.strided:
            return 0
        weak = StorageWeakRef(tensor.untyped_storage())
        self.storages.setdefault(weak.cdata, weak)
        return int(weak.cdata)

    def state(self, tensor: Tensor) -> tuple[Any, ...]:
        """Alike as long as nothing writes its storage. Versions are not enough: ``tensor.data`` and
        fused optimizers count none, tensors of the inference mode have none."""
        key = self.key(tensor)
        version = 0 if tensor.is_inference() else tensor._version
        return key or object(), version, self.writers.get(key)

    def content(self, tensor: Tensor) -> tuple[Any, ...]:
        """Alike for tensors that hold the same numbers: views, and clones that nobody changed."""
        state = self.state(tensor)
        shape = tuple(tensor.shape)
        if (state, shape) == self.copied.get(state[0], ((), ()))[:2]:
            return self.copied[state[0]][2]  # type: ignore[no-any-return]
        return *state, shape, tensor.stride(), tensor.storage_offset()

    def sources(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> frozenset[int]:
        """The operators that wrote what this one reads."""
        read = tensors_in([list(args), kwargs])
        mutated = _mutated_tensors(func, args, kwargs)
        if _name(func) in _OVERWRITES:
            over = [t for t in mutated if _covers_its_storage(t)]
            read = [t for t in read if not any(t is each for each in over)]
        keys = {self.key(each) for each in read}
        found = {self.writers[key] for key in keys if key in self.writers}
        by_others = keys & self.unseen - set(map(self.key, mutated))
        if by_others and not func.is_view:
            # A kernel that no dispatch mode sees wrote it; from what, nobody knows. Gradients of
            # weights are for optimizers.
            self.unseen -= by_others
            operators = self.operators
            found |= {w for w in self.writers.values() if operators[w].place.part != OF_WEIGHTS}
        return frozenset(found)

    def write(
        self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], results: Iterable[Any]
    ) -> None:
        """Books the results of operators, in the order of ``results``: (operator, tensors)."""
        mutated = {self.key(each) for each in _mutated_tensors(func, args, kwargs)}
        number = len(self.operators) - 1
        for key in mutated:
            if key not in self.writers or key in self.outside:
                self.outside.add(key)
                self.seen.add(number)
            self.writers[key] = number
            self.unseen.discard(key)
        if _name(func) in _SEEN:
            self.seen.add(number)
        if func.is_view:
            return
        for operator, tensors in results:
            for tensor in tensors:
                key = self.key(tensor)
                if key == 0:
                    self.seen.add(operator)
                elif key not in mutated:
                    self.writers[key] = operator
                    if _name(func) in _EMPTY and tensor.numel():
                        self.unseen.add(key)
                    if _name(func) == "clone":
                        shape = tuple(tensor.shape)
                        self.copied[key] = (self.state(tensor), shape, self.content(args[0]))

    def see(self, tensors: Iterable[Tensor]) -> None:
        """That somebody reads them."""
        keys = map(self.key, tensors)
        self.seen.update(self.writers[key] for key in keys if key in self.writers)

    def find_useful(self, gradients: dict[str, list[int]], before: dict[str, int]) -> None:
        """Says of every operator whether it is. ``gradients``: storages that are gradients of a
        side when the step is over; ``before``: the operators that stand for those of the last
        step: if something took these, the next step takes what is left of this one."""
        of_sides = {key for keys in gradients.values() for key in keys}
        for key, operator in self.writers.items():
            if key not in of_sides and not self.storages[key].expired():
                self.seen.add(operator)
        self._sweep()
        for side, keys in gradients.items():
            if side not in before or self.operators[before[side]].useful:
                self.seen |= {self.writers[key] for key in keys if key in self.writers}
        self._sweep()

    def _sweep(self) -> None:
        reached = set(self.seen)
        for number in range(len(self.operators) - 1, -1, -1):
            self.operators[number].useful = number in reached
            if number in reached:
                reached |= self.operators[number].sources
