"""A critic's further arguments: which of them hold one row for each sample."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.utils.rnn import PackedSequence

from ganloss_fast._torch import TreeSpec, tree_flatten, tree_leaves, tree_unflatten
from ganloss_fast.checks import describe, quoted

BatchArgs = Sequence[int | str] | None
Rows = slice | list[int]


def _is_array(value: object) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def _row_count(value: Any) -> int | None:
    """How many rows or entries a value has; None for what has none."""
    if isinstance(value, Tensor):
        return value.size(0) if value.dim() > 0 else None  # nested ones have no shape
    if _is_array(value):
        return value.shape[0] if value.ndim > 0 else None
    if isinstance(value, PackedSequence):
        return int(value.batch_sizes[0])
    if isinstance(value, (str, bytes, Module, type)) or not hasattr(value, "__len__"):
        return None
    return len(value)


def _can_be_sliced(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.layout == torch.strided and not value.is_nested
    return _is_array(value) or type(value) in (list, tuple)


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return "a nested tensor" if value.is_nested else f"a tensor of layout {value.layout}"
    return f"a {type(value).__name__}"


def take_rows(value: Any, rows: Rows) -> Any:
    """Rows of a tensor or array, or entries of a list or tuple."""
    if isinstance(value, Tensor) and not isinstance(rows, slice):
        return value[torch.tensor(rows, device=value.device)]
    if isinstance(value, (list, tuple)) and not isinstance(rows, slice):
        return type(value)(value[row] for row in rows)
    return value[rows]


def doubled_rows(value: Any) -> Any:
    if isinstance(value, Tensor):
        return torch.cat([value, value])
    return take_rows(value, [*range(len(value)), *range(len(value))])


class CriticArguments:
    """``args`` and ``kwargs`` as a flat list of values, and which of these are batched.

    Without ``batch_args`` that is every tensor and array with as many rows as there are samples,
    in nested lists, tuples and dicts too; with it, all of the arguments it names, by position in
    ``args`` or by name in ``kwargs``, and no other. A list of as many entries as there are
    samples, none of which has rows itself, may be either: ``batch_args`` has to say.
    """

    def __init__(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], batch: int, batch_args: BatchArgs
    ) -> None:
        self.values: list[Any] = []
        self.names: list[str] = []
        self.batched: list[bool] = []
        self._keywords = list(kwargs)
        self._specs: list[TreeSpec] = []

        def is_one_value(value: Any) -> bool:
            if isinstance(value, PackedSequence):
                return True
            if type(value) not in (list, tuple) or len(value) != batch or batch < 2:
                return False
            return not any(
                (isinstance(leaf, Tensor) or _is_array(leaf)) and _row_count(leaf) == batch
                for leaf in tree_leaves(value)
            )

        for key, argument in [*enumerate(args), *kwargs.items()]:
            name = f"critic_args[{quoted(key)}]"
            values, spec = tree_flatten(argument, is_leaf=is_one_value)
            named = None if batch_args is None else key in batch_args
            flags = [_is_batched(name, value, batch, named) for value in values]
            if named and argument is not None and not any(flags):
                raise ValueError(
                    f"batch_args: expected one row for each of the {batch} samples in {name}, got "
                    f"{describe(argument)}."
                )
            self._specs.append(spec)
            self.values += values
            self.names += [name] * len(values)
            self.batched += flags

    def mapped(self, function: Callable[[Any, bool], Any]) -> tuple[list[Any], dict[str, Any]]:
        """args and kwargs with ``function(value, is_batched)`` in place of every value."""
        values = iter([function(v, b) for v, b in zip(self.values, self.batched)])
        trees = [
            tree_unflatten([next(values) for _ in range(spec.num_leaves)], spec)
            for spec in self._specs
        ]
        positional = len(trees) - len(self._keywords)
        return trees[:positional], dict(zip(self._keywords, trees[positional:]))

    def how_they_went_in(self) -> str:
        """For an error that may come from a wrong guess: what was sliced, and what was not."""
        sliced = dict.fromkeys(name for name, b in zip(self.names, self.batched) if b)
        plain = (type(None), bool, int, float, str)
        whole = dict.fromkeys(
            name
            for name, value, b in zip(self.names, self.values, self.batched)
            if not b and not isinstance(value, plain)
        )
        text = ""
        if sliced:
            text = f"batch_args: {', '.join(sliced)} was sliced with the batch, as it has as many "
            text += "rows. If that is wrong, name those arguments that hold one row for each "
            text += "sample in batch_args."
        if whole:
            text += f" {', '.join(whole)} went in whole."
        return text.strip()


def _is_batched(name: str, value: Any, batch: int, named: bool | None) -> bool:
    if named is False:
        return False
    count = _row_count(value)
    if count != batch:
        if named and (isinstance(value, Tensor) or count is not None):
            what = describe(value) if _can_be_sliced(value) else _kind(value)
            raise ValueError(
                f"batch_args: expected one row for each of the {batch} samples in {name}, got "
                f"{what}."
            )
        return False
    if not _can_be_sliced(value):
        raise ValueError(
            f"{name}: {_kind(value)} cannot be sliced with the batch, though it has as many rows "
            "as there are samples. Make it dense, or name in batch_args the arguments that hold "
            "one row for each sample, () for none; or compute in one piece."
        )
    if named is None and not isinstance(value, Tensor) and not _is_array(value):
        raise ValueError(
            f"{name}: {describe(value)} has as many entries as there are samples, and may hold one "
            "for each or not. Name in batch_args the arguments that do, () for none."
        )
    return True


def check_batch_args(args: Sequence[Any], kwargs: Mapping[str, Any], batch_args: BatchArgs) -> None:
    if batch_args is None:
        return
    for key in batch_args:
        if key not in kwargs and (isinstance(key, str) or key not in range(len(args))):
            raise ValueError(
                f"batch_args: {quoted(key)} is neither a position among the critic's arguments, of "
                f"which there are {len(args)}, nor a name of one."
            )
