"""The graph cut where there is no extension: hooks that drop zeros instead of removed edges.

The gradients are those of csrc/graph_cut/graph_cut.cpp. A tensor inside the critic gets None
where that gives zeros, and the walk takes a few times longer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ganloss_fast.graph_cut.rows import Node, Row, proven_row, walk

Gradients = Sequence[Tensor | None]

_CUT = "ganloss_fast_cut"  # key in a node's metadata: it has its hook
# Edges on which a defined gradient goes out whenever one comes in, for nodes with several
# incoming gradients: grad_output and weight. The input's needs a gradient of the weight's.
_SURELY_DEFINED = {
    "ConvolutionBackwardBackward0": (0, 2),
    "PreluKernelBackwardBackward0": (0, 2),
}


def is_compiled(node: Node) -> bool:
    """Whether torch.compile made the node."""
    name: str = node.name()
    return name.startswith("CompiledFunction")


def row_of(node: Node) -> Row | None:
    """The row that applies to this node, if there is one."""
    row = proven_row(node.name())
    if row is None or row.edge >= len(node.next_functions):
        return None
    if node.next_functions[row.edge][0] is None:
        return None
    if row.real_only and node._input_metadata[0].dtype.is_complex:
        return None
    return row


def _drop(row: Row) -> Callable[[Gradients, Gradients], Gradients | None]:
    def hook(grad_inputs: Gradients, grad_outputs: Gradients) -> Gradients | None:
        if row.idle_input >= 0 and grad_outputs[row.idle_input] is not None:
            return None
        return (*grad_inputs[: row.edge], None, *grad_inputs[row.edge + 1 :])

    return hook


def _kept_edges(node: Node, row: Row | None) -> list[Node]:
    """Where a defined gradient surely goes on to; see csrc/graph_cut/graph_cut.cpp."""
    name = node.name()
    count = len(node.next_functions)
    sure: Sequence[int] = ()
    if name in _SURELY_DEFINED:
        sure = _SURELY_DEFINED[name]
    elif name[-1].isdigit() and len(node._input_metadata) == 1:
        sure = range(count)
    return [
        node.next_functions[k][0]
        for k in sure
        if k < count and node.next_functions[k][0] is not None and (row is None or k != row.edge)
    ]


class _ZeroFill(torch.autograd.Function):
    """Identity of ``count`` gradients, whose backward also gives zeros to the leaves."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.count = count
        ctx.leaves = tensors[count:]
        ctx.set_materialize_grads(False)
        return tuple(grad.view_as(grad) for grad in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *incoming: Tensor | None) -> tuple[Tensor | None, ...]:
        zeros = [torch.zeros_like(leaf) for leaf in ctx.leaves]
        return (None, *incoming, *zeros)


def with_zeros(grads: Sequence[Tensor], leaves: Sequence[Tensor]) -> list[Tensor]:
    return list(_ZeroFill.apply(len(grads), *grads, *leaves)) if leaves else list(grads)


def cut_second_order(
    grads: Sequence[Tensor],
    zero_grads: str,
    parameters: Sequence[Tensor],
    hidden: Sequence[Tensor],
) -> tuple[list[Tensor], int, int, bool]:
    """As ``_C.cut_second_order``: gradients, cut edges, nodes, and whether one is compiled."""
    roots = [grad.grad_fn for grad in grads]
    rows: dict[Node, Row] = {}
    nodes = 0
    compiled = False
    for node in walk(roots):
        nodes += 1
        compiled = compiled or is_compiled(node)
        row = row_of(node)
        if row is None:
            continue
        rows[node] = row
        if not node.metadata.get(_CUT):
            node.metadata[_CUT] = True
            node.register_hook(_drop(row))
    if zero_grads == "none":
        return list(grads), len(rows), nodes, compiled

    kept: set[Node] = set()
    stack = [root for root in roots if root is not None]
    while stack:
        node = stack.pop()
        if node not in kept:
            kept.add(node)
            stack.extend(_kept_edges(node, rows.get(node)))
    targets = [node.next_functions[row.edge][0] for node, row in rows.items()]
    hidden_ids = {id(tensor) for tensor in hidden}
    leaves: dict[int, Tensor] = {}
    reached: set[int] = set()
    for node in walk(targets):
        leaf = getattr(node, "variable", None)
        if leaf is None:
            continue
        reached.add(id(leaf))
        if node not in kept:
            leaves[id(leaf)] = leaf
    if zero_grads == "all":
        kept_ids = {id(node.variable) for node in kept if hasattr(node, "variable")}
        for parameter in parameters:
            if parameter.requires_grad and id(parameter) not in reached | kept_ids:
                leaves[id(parameter)] = parameter
    filled = [leaf for key, leaf in leaves.items() if key not in hidden_ids]
    return with_zeros(grads, filled), len(rows), nodes, compiled
