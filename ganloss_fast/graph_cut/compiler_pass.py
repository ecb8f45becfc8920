"""A pass for torch.compile that removes the dead second-order branch of a penalty step.

While compiling, a penalty is traced through torch.func, and the graph cut, which edits autograd
nodes, has nothing to edit. The traced graph holds the same zeros as the eager one does, and the
compiler does not find them: they start at a ``full(..., 0)`` and end in convolutions. This pass
follows them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

from ganloss_fast._torch import graph_pass

_aten = torch.ops.aten

# Views of their first argument, and zero if it is.
_VIEWS = {
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
    _aten.diagonal,
    _aten.unfold,
    _aten.split,
    _aten.split_with_sizes,
    _aten.unbind,
    _aten.alias,
    _aten.detach,
}
# Zero if their first argument is.
_CARRIERS = {
    operator.getitem,
    _aten.clone,
    _aten.neg,
    _aten.abs,
    _aten.sgn,
    _aten._to_copy,
    _aten.sum,
    _aten.mean,
    _aten.cumsum,
    _aten.div,
    _aten.repeat,
    _aten.flip,
    _aten.roll,
    _aten.gather,
    _aten.index,
    _aten._unsafe_index,
    _aten.index_select,
    _aten.avg_pool1d,
    _aten.avg_pool2d,
    _aten.avg_pool3d,
    _aten._adaptive_avg_pool2d,
    _aten._adaptive_avg_pool3d,
    _aten.pixel_shuffle,
    _aten.pixel_unshuffle,
    _aten.im2col,
    _aten.col2im,
    torch.ops.prims.convert_element_type,
}
# Zero if one of their first two arguments is.
_PRODUCTS = {_aten.mul, _aten.mm, _aten.bmm, _aten.mv, _aten.dot}
# Zero if all of these arguments are.
_SUMS: dict[Any, tuple[int, ...]] = {
    _aten.add: (0, 1),
    _aten.sub: (0, 1),
    _aten.where: (1, 2),
    _aten.masked_fill: (0, 2),
    _aten.scatter: (0, 3),
    _aten.scatter_add: (0, 3),
    _aten.index_add: (0, 3),
    _aten.index_put: (0, 2),
    _aten._unsafe_index_put: (0, 2),
    _aten.slice_scatter: (0, 1),
    _aten.select_scatter: (0, 1),
    _aten.diagonal_scatter: (0, 1),
    _aten.copy: (1,),
    _aten.cat: (0,),
    _aten.stack: (0,),
}
_ZEROS = {_aten.zeros, _aten.zeros_like, _aten.new_zeros}
_FULLS = {_aten.full: 1, _aten.full_like: 1, _aten.scalar_tensor: 0}


def _packet(node: Node) -> Any:
    return getattr(node.target, "overloadpacket", node.target)


def _is_zero_operand(value: Any, zeros: set[Node]) -> bool:
    if isinstance(value, Node):
        return value in zeros
    if isinstance(value, (list, tuple)):
        return bool(value) and all(_is_zero_operand(item, zeros) for item in value)
    return isinstance(value, (int, float)) and value == 0


def _is_linear_backward(target: Any) -> bool:
    """A backward operation that is linear in its first argument, the gradient that comes in.
    Recurrent layers' take several, or none first."""
    schema = getattr(target, "_schema", None)
    if schema is None or not schema.name.startswith("aten::") or "_backward" not in schema.name:
        return False
    first, *others = (argument.name for argument in schema.arguments)
    return first.startswith("grad") and not any(name.startswith("grad") for name in others)


def _is_zero(node: Node, zeros: set[Node]) -> bool:
    """Whether every element of the node's value is 0, given the nodes that are."""
    packet, args = _packet(node), node.args

    def is_zero(*positions: int) -> bool:
        return all(k < len(args) and _is_zero_operand(args[k], zeros) for k in positions)

    if packet in _ZEROS:
        return True
    if packet in _FULLS:
        return is_zero(_FULLS[packet])
    if packet in _VIEWS or packet in _CARRIERS:
        return is_zero(0)
    if packet in _PRODUCTS:
        return is_zero(0) or is_zero(1)
    if packet in _SUMS:
        return is_zero(*_SUMS[packet])
    if packet is _aten.constant_pad_nd:
        return is_zero(0) and (len(args) < 3 or is_zero(2))
    if packet is _aten.addmm:
        return is_zero(0) and (is_zero(1) or is_zero(2))
    if packet is _aten.convolution:
        return (is_zero(0) or is_zero(1)) and args[2] is None
    return _is_linear_backward(node.target) and is_zero(0)


def _value(node: Any) -> Tensor | None:
    """What the node computes, as a tensor without data; None where the compiler knows less."""
    value = node.meta.get("val") if isinstance(node, Node) else None
    if not isinstance(value, Tensor):
        return None
    is_static = all(isinstance(extent, int) for extent in (*value.shape, *value.stride()))
    return value if is_static else None


def _is_laid_out_alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.stride() == b.stride()


def _call(
    graph: Graph, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], value: Tensor
) -> Node:
    node = graph.call_function(target, args, kwargs)
    node.meta["val"] = value
    return node


def _summand(node: Node, zeros: set[Node]) -> Node | None:
    """What  x + 0, 0 + x  or  x - 0  is, as a node with the strides of the sum.

    Some kernels read a gradient as if it were contiguous, so x itself will not do where it is a
    slice; nor as a result of the graph, which is a tensor of its own.
    """
    first, second = node.args
    candidates = [(first, second)]
    if _packet(node) is _aten.add:
        candidates.append((second, first))
    wanted = _value(node)
    for kept, zero in candidates:
        value = _value(kept)
        if not isinstance(kept, Node) or not _is_zero_operand(zero, zeros):
            continue
        if value is None or wanted is None:
            continue
        is_result = any(user.op == "output" for user in node.users)
        if _is_laid_out_alike(value, wanted) and not is_result:
            return kept
        for memory_format in (torch.preserve_format, torch.contiguous_format):
            copy = value.clone(memory_format=memory_format)
            if _is_laid_out_alike(copy, wanted):
                options = {"memory_format": memory_format}
                with node.graph.inserting_before(node):
                    return _call(node.graph, _aten.clone.default, (kept,), options, copy)
    return None


def _full_of_zeros(node: Node, value: Tensor) -> Node | None:
    """A zero tensor with the strides of the node's value; None if it has gaps or overlaps."""
    strides = value.stride()
    order = sorted(range(value.dim()), key=lambda k: (-strides[k], k))
    inverse = sorted(range(value.dim()), key=order.__getitem__)
    full = value.new_empty([value.shape[k] for k in order])
    permuted = full.permute(inverse)
    if not _is_laid_out_alike(permuted, value):
        return None
    options = {"dtype": value.dtype, "device": value.device, "pin_memory": False}
    graph = node.graph
    with graph.inserting_before(node):
        zero = _call(graph, _aten.full.default, (list(full.shape), 0), options, full)
        if full.stride() == strides:
            return zero
        return _call(graph, _aten.permute.default, (zero, inverse), {}, permuted)


def _is_sum_of_two(node: Node) -> bool:
    return _packet(node) in (_aten.add, _aten.sub) and len(node.args) == 2 and not node.kwargs


def _replace_zeros(nodes: Sequence[Node]) -> None:
    """Computed zeros by constants, so that nothing needs what they were computed from."""
    for node in nodes:
        value = _value(node)
        if value is None or _packet(node) in _VIEWS or _packet(node) is _aten.full:
            continue
        zero = _full_of_zeros(node, value)
        if zero is not None:
            node.replace_all_uses_with(zero)


def remove_zero_branch(graph: Graph) -> None:
    """Removes what multiplies exact zeros from a graph of ATen operations, in place.

    A product with zero counts as zero; as everywhere in the graph cut but for its signal, an inf
    in the critic then makes fewer NaN gradients than the uncut step. Shapes that are not known
    while compiling are left alone.
    """
    zeros: set[Node] = set()
    found: list[Node] = []
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if _is_zero(node, zeros):
            zeros.add(node)
            found.append(node)
        elif _is_sum_of_two(node):
            summand = _summand(node, zeros)
            if summand is not None:
                node.replace_all_uses_with(summand)
    _replace_zeros(found)
    graph.eliminate_dead_code()
    graph.lint()


def compile_options(**options: Any) -> dict[str, Any]:
    """Options for torch.compile that give a compiled penalty step the graph cut.

    ::

        @torch.compile(fullgraph=True, options=compile_options())
        def penalty(real, fake):
            return gradient_penalty(critic, real, fake)

    and an ordinary ``.backward()`` outside.

    Spectral norm in training mode: torch 2.14's own compiler gives wrong gradients, by up to
    4e-3, where a weight has three or four columns, such as a 1x1 convolution of an RGB image; in
    a plain loss as in a penalty. Right: seven columns and more, a power iteration that has
    converged, eval mode.

    Args:
        options: further options of torch.compile, which are passed on.
    """
    passes: dict[str, Callable[..., Any]] = {
        "post_grad_custom_pre_pass": graph_pass(remove_zero_branch, __file__)
    }
    return {**passes, **options}
