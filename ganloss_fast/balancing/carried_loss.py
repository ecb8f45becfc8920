"""A weighed sum of losses that brings its gradient along: the balanced backward for trainers that
call ``loss.backward()`` themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ganloss_fast.balancing.backward import walk_back
from ganloss_fast.balancing.loss_graph import (
    is_leaf,
    is_needed_later,
    nodes_behind,
    nodes_down_to,
)
from ganloss_fast.balancing.rules import AdaptiveWeight
from ganloss_fast.checks import Weight
from ganloss_fast.graph_cut.rows import Node
from ganloss_fast.ops.terms import autocast_dtype


class _Carried(torch.autograd.Function):
    """The value of a loss, and its gradients at some inputs, which were computed already."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, count: int, *tensors: Tensor) -> Tensor:
        ctx.count = count
        ctx.save_for_backward(*tensors[count:])
        return value.clone()

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "create_graph: the gradient of this loss was computed when the loss was, and has "
                "no graph of its own."
            )
        gradients = [gradient * scale.to(gradient.dtype) for gradient in ctx.saved_tensors]
        return None, None, *gradients, *[None] * ctx.count


def _graph_to(loss: Tensor, reconstruction: Tensor) -> set[Node] | None:
    """The nodes of a loss as far as the reconstruction; None if it does not depend on that."""
    nodes, met = nodes_down_to(loss, reconstruction)
    return nodes if met else None


def _keeps_scale(reconstruction: Tensor) -> bool:
    """Whether gradients of an unscaled loss are good: in float16 they are nothing but zeros."""
    return torch.float16 not in (reconstruction.dtype, autocast_dtype(reconstruction.device))


def carried_loss(
    losses: Sequence[Tensor],
    reconstruction: Tensor,
    last_layer: Tensor,
    weights: Sequence[Weight],
    loss_parameters: Sequence[Tensor] = (),
    left_out: Sequence[Tensor] = (),
) -> tuple[Tensor, Tensor] | None:
    """The sum of losses under :class:`AdaptiveWeight`, each of them walked back once, here.

    Args:
        losses: of one element each, the first of which measures the others.
        reconstruction: what the model returned, and all losses were computed from.
        last_layer: the weight at which norms are taken.
        weights: of the rule, one for each loss.
        loss_parameters: parameters of the losses that learn.
        left_out: parameters that shall get no gradient.

    Returns:
        The sum, whose backward starts at the reconstruction, and the norms [L]. None where that
        would not be all of the backward: where something else would get a gradient, where a hook
        waits at the reconstruction, and in float16, where gradients need the scale of their loss.
    """
    has_graph = reconstruction.requires_grad and not reconstruction._backward_hooks
    if not has_graph or not _keeps_scale(reconstruction):
        return None
    graphs = [_graph_to(loss, reconstruction) for loss in losses]
    known = {id(tensor) for tensor in (*loss_parameters, *left_out)}
    behind = nodes_behind(reconstruction)
    for nodes in graphs:
        if nodes is None or nodes & behind:
            return None
        if any(is_leaf(node) and id(node.variable) not in known for node in nodes):
            return None
    found = [nodes for nodes in graphs if nodes is not None]
    inputs = (reconstruction, *(p for p in loss_parameters if p.requires_grad))
    walked = walk_back(
        losses,
        inputs,
        last_layer,
        weights,
        AdaptiveWeight(),
        None,
        None,
        None,
        keeps=[is_needed_later(found[k], found[k + 1 :]) for k in range(len(found))],
    )
    value = sum(loss.detach() * weight for loss, weight in zip(losses, walked.weights.unbind()))
    pairs = [(x, gradient) for x, gradient in zip(inputs, walked.sums) if gradient is not None]
    tensors = [x for x, _ in pairs] + [gradient for _, gradient in pairs]
    return _Carried.apply(value, len(pairs), *tensors), walked.norms
