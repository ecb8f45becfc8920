"""A critic's further arguments: which of them hold one row for each sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from ganloss_fast.checks import describe, quoted

BatchArgs = Sequence[int | str] | None


class CriticArguments:
    """``args`` and ``kwargs`` as a flat list of values, and which of these are batched.

    Without ``batch_args`` that is every tensor with as many rows as there are samples, in nested
    lists, tuples and dicts too; with it, every tensor of the arguments it names, by position in
    ``args`` or by name in ``kwargs``, and no other.
    """

    def __init__(self, args: Sequence, kwargs: Mapping, batch: int, batch_args: BatchArgs) -> None:
        self.values: list[Any] = []
        self.names: list[str] = []
        self.batched: list[bool] = []
        self._keywords = list(kwargs)
        self._specs: list[TreeSpec] = []
        for key, argument in [*enumerate(args), *kwargs.items()]:
            name = f"critic_{'kwargs' if isinstance(key, str) else 'args'}[{quoted(key)}]"
            values, spec = tree_flatten(argument)
            self._specs.append(spec)
            for value in values:
                has_rows = isinstance(value, Tensor) and value.dim() > 0
                is_batched = has_rows and value.shape[0] == batch
                if batch_args is not None and key not in batch_args:
                    is_batched = False
                elif batch_args is not None and isinstance(value, Tensor) and not is_batched:
                    raise ValueError(
                        f"batch_args: expected one row for each of the {batch} samples in {name}, "
                        f"got {describe(value)}."
                    )
                self.values.append(value)
                self.names.append(name)
                self.batched.append(is_batched)

    def mapped(self, function: Callable[[Any, bool], Any]) -> tuple[list, dict[str, Any]]:
        """args and kwargs with ``function(value, is_batched)`` in place of every value."""
        values = iter([function(v, b) for v, b in zip(self.values, self.batched)])
        trees = [
            tree_unflatten([next(values) for _ in range(spec.num_leaves)], spec)
            for spec in self._specs
        ]
        positional = len(trees) - len(self._keywords)
        return trees[:positional], dict(zip(self._keywords, trees[positional:]))


def check_batch_args(args: Sequence, kwargs: Mapping, batch_args: BatchArgs) -> None:
    if batch_args is None:
        return
    if not isinstance(batch_args, (list, tuple)):
        raise TypeError(
            "batch_args: expected a tuple of positions in critic_args and names in critic_kwargs, "
            f"got {describe(batch_args)}."
        )
    for key in batch_args:
        if key not in kwargs and (isinstance(key, str) or key not in range(len(args))):
            raise ValueError(
                f"batch_args: {quoted(key)} is neither a position in critic_args, of which there "
                f"are {len(args)}, nor a name in critic_kwargs."
            )
