"""Gradients of the leaves of a graph, taken aside: no hook of a parameter hears of them.

A step's own backward runs each hook once, on the whole gradient. A gradient that is a part of
that one, or serves to look at the critic only, must not run them too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ganloss_fast.graph_cut.rows import walk


def leaves_of(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The leaves that the tensors were computed from."""
    nodes = walk([tensor.grad_fn for tensor in tensors])
    return [node.variable for node in nodes if hasattr(node, "variable")]


def gradients_aside(
    total: Tensor, tensors: Sequence[Tensor], retain_graph: bool = False
) -> tuple[Tensor | None, ...]:
    """Gradients of ``total`` with respect to leaves, whose hooks do not run."""
    with _without_hooks(tensors):
        return torch.autograd.grad(total, tensors, allow_unused=True, retain_graph=retain_graph)


@contextlib.contextmanager
def _without_hooks(tensors: Sequence[Tensor]) -> Iterator[None]:
    # The dictionaries are emptied, not replaced: autograd holds on to the very objects, and so do
    # the handles that remove a hook.
    suspended = [(t._backward_hooks, dict(t._backward_hooks)) for t in tensors if t._backward_hooks]
    for hooks, _ in suspended:
        hooks.clear()
    try:
        yield
    finally:
        for hooks, registered in suspended:
            added = dict(hooks)  # by a forward pass that a checkpoint repeated
            hooks.clear()
            hooks.update(registered)
            hooks.update(added)
