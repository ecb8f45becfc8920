"""A pass for torch.compile that removes the dead second-order branch of a penalty step.

While compiling, a penalty is traced through torch.func, and the graph cut, which edits autograd
nodes, has nothing to edit. The traced graph holds the same zeros as the eager one does, and the
compiler does not find them: they start at a ``full(..., 0)`` and end in convolutions. This pass
follows them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch

_aten = torch.ops.aten

# Zero if their first argument is.
_CARRIERS = {
    _aten.view,
    _aten._unsafe_view,
    _aten.reshape,
    _aten.expand,
    _aten.permute,
    _aten.transpose,
    _aten.t,
    _aten.squeeze,
    _aten.unsqueeze,
    _aten.slice,
    _aten.select,
    _aten.clone,
    _aten.alias,
    _aten.detach,
    _aten.neg,
    _aten._to_copy,
    _aten.sum,
    _aten.mean,
    _aten.div,
    torch.ops.prims.convert_element_type,
}
# Zero if one of their first two arguments is.
_PRODUCTS = {_aten.mul, _aten.mm, _aten.bmm}
_ZEROS = {_aten.zeros, _aten.zeros_like, _aten.new_zeros}
_FULLS = {_aten.full: 1, _aten.full_like: 1, _aten.scalar_tensor: 0}


def _packet(node: torch.fx.Node) -> Any:
    return getattr(node.target, "overloadpacket", node.target)


def _is_zero(node: torch.fx.Node, zeros: set[Any]) -> bool:
    """Whether every element of the node's value is 0, given the nodes that are."""
    packet, args = _packet(node), node.args
    if packet in _ZEROS:
        return True
    if packet in _FULLS:
        value = args[_FULLS[packet]]
        return isinstance(value, (int, float)) and value == 0
    if packet in _CARRIERS or packet is operator.getitem:
        return args[0] in zeros
    if packet in _PRODUCTS:
        return args[0] in zeros or args[1] in zeros
    if packet in (_aten.add, _aten.sub):
        return args[0] in zeros and args[1] in zeros
    if packet is _aten.where:
        return all(branch in zeros for branch in args[1:3])
    if packet is _aten.convolution:
        return (args[0] in zeros or args[1] in zeros) and args[2] is None
    # A backward operation is linear in the gradient that comes in, its first argument.
    name = str(packet)
    return name.startswith("aten.") and name.endswith("_backward") and args[0] in zeros


def _same_value(kept: torch.fx.Node, node: torch.fx.Node) -> bool:
    a, b = kept.meta.get("val"), node.meta.get("val")
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor):
        return False
    return a.shape == b.shape and a.dtype == b.dtype


def _other_summand(node: torch.fx.Node, zeros: set[Any]) -> torch.fx.Node | None:
    """What  x + 0, 0 + x  or  x - 0  is, if it is one of its operands as it stands."""
    first, second = node.args
    candidates = [(first, second)]
    if _packet(node) is _aten.add:
        candidates.append((second, first))
    for kept, zero in candidates:
        if zero in zeros and isinstance(kept, torch.fx.Node) and _same_value(kept, node):
            return kept
    return None


def remove_zero_branch(graph: torch.fx.Graph) -> None:
    """Removes what multiplies exact zeros from a graph of ATen operations, in place.

    A product with zero counts as zero; as everywhere in the graph cut but for its signal, an inf
    in the critic then makes fewer NaN gradients than the uncut step. Shapes that are not known
    while compiling are left alone.
    """
    zeros: set[Any] = set()
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if _packet(node) in (_aten.add, _aten.sub) and len(node.args) == 2 and not node.kwargs:
            kept = _other_summand(node, zeros)
            if kept is not None:
                node.replace_all_uses_with(kept)
                continue
        if _is_zero(node, zeros):
            zeros.add(node)
    for node in list(graph.nodes):
        value = node.meta.get("val")
        if node not in zeros or not isinstance(value, torch.Tensor) or _packet(node) is _aten.full:
            continue
        if not all(isinstance(extent, int) for extent in value.shape):
            continue
        with graph.inserting_before(node):
            full = graph.call_function(
                _aten.full.default,
                (list(value.shape), 0),
                {"dtype": value.dtype, "device": value.device, "pin_memory": False},
            )
        full.meta["val"] = value
        node.replace_all_uses_with(full)
    graph.eliminate_dead_code()
    graph.lint()


def compile_options(**options: Any) -> dict[str, Any]:
    """Options for torch.compile that give a compiled penalty step the graph cut.

    ::

        @torch.compile(fullgraph=True, options=compile_options())
        def penalty(real, fake):
            return gradient_penalty(critic, real, fake)

    and an ordinary ``.backward()`` outside.

    Args:
        options: further options of torch.compile, which are passed on.
    """
    from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files

    class RemoveZeroBranch(CustomGraphPass):
        def __call__(self, graph: torch.fx.Graph) -> None:
            remove_zero_branch(graph)

        def uuid(self) -> Any:  # the compiler's cache has to know what ran
            return get_hash_for_files((__file__,))

    passes: dict[str, Callable] = {"post_grad_custom_pre_pass": RemoveZeroBranch()}
    return {**passes, **options}
