"""A penalty in slices of the batch, for resolutions at which the whole batch does not fit.

Each slice's graph is built, differentiated and dropped before the next, so the memory is that of
one slice plus one copy of the gradients. The FLOPs are those of the penalty in one piece; calls
1, 2, 4, 8, ... of a critic add about one slice, to ask whether its samples interact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ganloss_fast.checks import check_integer
from ganloss_fast.graph_cut.hooks import is_compiled
from ganloss_fast.graph_cut.rows import walk
from ganloss_fast.ops.terms import compute_dtype
from ganloss_fast.penalties.critic.arguments import CriticArguments, Rows
from ganloss_fast.penalties.critic.call import CriticCall
from ganloss_fast.penalties.critic.gradient import (
    CriticRun,
    explaining_missing_derivatives,
    gradients_of,
    is_functional,
    refuse_forward_mode,
    run_critic,
    scales,
)
from ganloss_fast.penalties.critic.independence import refuse_interaction
from ganloss_fast.penalties.critic.leaf_gradients import gradients_aside, leaves_of
from ganloss_fast.penalties.critic.modules import ModuleStates
from ganloss_fast.penalties.critic.slices import BatchSlice, Runner, first_run
from ganloss_fast.penalties.penalty_call import PenaltyCall


class _Precomputed(torch.autograd.Function):
    """A value whose gradients are known already, and have no graph."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: Sequence[Tensor], *tensors: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # once_differentiable lets an incoming 1 pass
            raise NotImplementedError(
                "chunk_size: the gradients of a penalty in slices have no graph, so a backward "
                "with create_graph=True would drop their second derivatives. Leave chunk_size out "
                "where the gradient of the loss is differentiated again."
            )
        scaled = [gradient * incoming.to(gradient.dtype) for gradient in ctx.gradients]
        return (None, None, *scaled)


class _Gradients:
    """Sums over the slices, by tensor."""

    def __init__(self) -> None:
        self._sums: dict[int, tuple[Tensor, Tensor]] = {}

    def add(self, tensor: Tensor, gradient: Tensor | None, part: Rows | None = None) -> None:
        """Adds a gradient of ``tensor``, or of ``tensor[part]``."""
        if part is not None:
            _, total = self._sums.setdefault(id(tensor), (tensor, torch.zeros_like(tensor)))
            if gradient is not None:
                total[part].add_(gradient)
        elif gradient is not None and id(tensor) in self._sums:
            self._sums[id(tensor)][1].add_(gradient)
        elif gradient is not None:
            self._sums[id(tensor)] = (tensor, gradient.clone())

    def attached_to(self, value: Tensor) -> Tensor:
        if not self._sums:
            return value
        tensors, gradients = zip(*self._sums.values())
        attached: Tensor = _Precomputed.apply(value, gradients, *tensors)
        return attached


def check_chunk_size(chunk_size: object) -> int:
    size = check_integer("chunk_size", chunk_size)
    if is_functional():
        raise RuntimeError(
            "chunk_size: not under torch.compile or torch.func; compile the step without it."
        )
    return size


def penalty_in_chunks(
    points: Sequence[Tensor], call: CriticCall, penalty: PenaltyCall, chunk_size: int
) -> Tensor:
    """The penalty at ``points``, ``chunk_size`` samples at a time."""
    asked = penalty.penalty
    if asked.reduction not in ("mean", "sum") or asked.norm == "batch":
        raise ValueError(
            'chunk_size: slices can be added up for reduction "mean" or "sum" and norm "sample" '
            f'or "channel"; got reduction {asked.reduction!r} and norm {asked.norm!r}.'
        )
    refuse_forward_mode(points)
    if any(point._backward_hooks for point in points):
        raise ValueError(
            "chunk_size: the samples have hooks, which the inner gradient of the whole batch would "
            "pass through, and that of a slice cannot. Give views, for example inputs.view_as("
            "inputs): the hooks then see the gradient of the penalty alone, once."
        )

    def of_slice(own: CriticCall, run: CriticRun, part: slice, share: float) -> Tensor:
        result = gradients_of(own, *run)
        grads = result.gradients
        if call.logit_reduction == "mean":  # of the slice's logits; the batch has more
            grads = [gradient * share for gradient in grads]
        value = result.signalled(penalty.of_slice(points, part)(grads))
        return value * share if asked.reduction == "mean" else value

    return sum_over_chunks(points, call, chunk_size, run_critic, of_slice)


def sum_over_chunks(
    points: Sequence[Tensor],
    call: CriticCall,
    chunk_size: int,
    run: Runner,
    of_slice: Callable[[CriticCall, CriticRun, slice, float], Tensor],
) -> Tensor:
    """Sum over slices of ``of_slice(call, run(call, points), part, share of the batch)``."""
    chunk_size = check_chunk_size(chunk_size)
    batch = points[0].shape[0]
    arguments = CriticArguments(call.args, call.kwargs, batch, call.how.batch_args)
    refuse_interaction(call, points, arguments, run, chunk_size)
    gradients = _Gradients()
    states = ModuleStates()
    counts: list[int] = []  # of logits for the samples of the first slice

    def value_of(part: slice) -> Tensor:  # a function: what it builds goes when it returns
        piece = BatchSlice(call, points, arguments, part)
        if part.start == 0:
            ran = first_run(piece, arguments, states, run)
        else:
            ran = run(piece.call, piece.points)
        _refuse_uneven(counts, piece, ran.logits)
        value = of_slice(piece.call, ran, part, (part.stop - part.start) / batch)
        if torch.is_grad_enabled() and value.requires_grad:
            _add_gradients(value, piece, ran.hidden, gradients)
        return value.detach()

    total = torch.zeros((), dtype=compute_dtype(points[0].dtype), device=points[0].device)
    try:
        for start in range(0, batch, chunk_size):
            total = total + value_of(slice(start, min(start + chunk_size, batch)))
    finally:
        states.unfreeze()
    return gradients.attached_to(total)


def _refuse_uneven(counts: list[int], piece: BatchSlice, logits: Sequence[Tensor]) -> None:
    """A slice of more samples has more logits, in proportion; else some belong to several."""
    here = [logit.numel() for logit in logits]
    samples = piece.points[0].shape[0]
    if not counts:
        counts += [samples, *here]
    first, *before = counts
    if [count * first for count in here] != [count * samples for count in before]:
        raise ValueError(
            f"chunk_size: the critic returns {here} logits for {samples} samples, and {before} for "
            f"the {first} of the first slice. Slices need as many logits for every sample; compute "
            "in one piece."
        )


def _add_gradients(
    penalty: Tensor, piece: BatchSlice, hidden: Sequence[Tensor], gradients: _Gradients
) -> None:
    stand_ins = {id(stand_in.leaf) for stand_in in piece.detached}.union(map(id, hidden))
    leaves = [leaf for leaf in leaves_of([penalty]) if id(leaf) not in stand_ins]
    if not leaves and not piece.detached:  # a function without parameters
        return
    scale, inverse = scales(piece.call.inv_scale, piece.points[0])
    with explaining_missing_derivatives():
        found = gradients_aside(
            penalty if scale is None else penalty * scale,
            [*leaves, *(stand_in.leaf for stand_in in piece.detached)],
            # A part may be shared, torch.nn.utils.parametrize.cached(); compiled graphs go once.
            retain_graph=not any(map(is_compiled, walk([penalty.grad_fn]))),
        )
    if inverse is not None:
        found = tuple(
            None if g is None else (g.to(inverse.dtype) * inverse).to(g.dtype) for g in found
        )
    for leaf, gradient in zip(leaves, found):
        gradients.add(leaf, gradient)
    for stand_in, gradient in zip(piece.detached, found[len(leaves) :]):
        gradients.add(stand_in.origin, gradient, stand_in.part)
