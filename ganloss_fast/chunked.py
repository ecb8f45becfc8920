"""A penalty in slices of the batch, for resolutions at which the whole batch does not fit.

Each slice's graph is built, differentiated and dropped before the next, so the memory is that of
one slice plus one copy of the parameter gradients. Nothing is computed twice: the FLOPs are
those of the penalty in one piece.
"""

from __future__ import annotations

import contextlib
import dataclasses
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ganloss_fast.checks import describe
from ganloss_fast.critic_gradient import CriticCall, input_gradients, is_functional, scales
from ganloss_fast.graph_cut_hooks import walk
from ganloss_fast.norm_penalty import NormPenalty
from ganloss_fast.terms import compute_dtype

INTERACTING = (
    "chunk_size: the samples of this critic interact (batch normalisation, mini-batch standard "
    "deviation), so slices of the batch would give another penalty. Compute it in one piece."
)


class _Precomputed(torch.autograd.Function):
    """A value whose gradients are known already."""

    @staticmethod
    def forward(ctx, value, gradients, *tensors):
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, incoming):
        scaled = [gradient * incoming.to(gradient.dtype) for gradient in ctx.gradients]
        return (None, None, *scaled)


def _slice(value: Any, batch: int, part: slice) -> Any:
    """The part of an argument that belongs to a slice of the batch."""
    if isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == batch:
        return value[part]
    return value


def _call_on(call: CriticCall, batch: int, part: slice) -> CriticCall:
    """The call with its further arguments cut down to a slice of the batch."""
    return dataclasses.replace(
        call,
        args=[_slice(value, batch, part) for value in call.args],
        kwargs={key: _slice(value, batch, part) for key, value in call.kwargs.items()},
    )


def _moving_modules(critic: Callable[..., Any]) -> list[torch.nn.Module]:
    """Modules that advance a power iteration on every forward; frozen after the first slice."""
    if not isinstance(critic, torch.nn.Module):
        return []
    return [
        module
        for module in critic.modules()
        if module.training
        and (
            type(module).__name__ == "_SpectralNorm"
            or any(type(h).__name__ == "SpectralNorm" for h in module._forward_pre_hooks.values())
        )
    ]


@contextlib.contextmanager
def _frozen_after_first(critic: Callable[..., Any]) -> Iterator[Callable[[], None]]:
    """Yields what to call after the first slice, so that the others see its spectral norms."""
    moving = _moving_modules(critic)

    def freeze() -> None:
        for module in moving:
            module.training = False

    try:
        yield freeze
    finally:
        for module in moving:
            module.training = True


def _buffer_versions(critic: Callable[..., Any]) -> list[int]:
    if not isinstance(critic, torch.nn.Module):
        return []
    return [buffer._version for buffer in critic.buffers()]


_independent: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()


def _refuse_interaction(call: CriticCall, points: Sequence[Tensor]) -> None:
    """Asks whether the first sample's logits depend on the others; once for each critic."""
    critic = call.critic
    if not isinstance(critic, torch.nn.Module):
        return
    for module in critic.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.training:
            raise ValueError(INTERACTING)
    if critic in _independent or points[0].shape[0] < 2:
        return
    state = [buffer.clone() for buffer in critic.buffers()]
    with torch.enable_grad(), torch.random.fork_rng():
        inputs = [point.detach().requires_grad_() for point in points]
        first = [logit[:1].sum() for logit in call.outputs(inputs) if logit.dim() > 0]
        gradients = torch.autograd.grad(first, inputs, allow_unused=True) if first else ()
    with torch.no_grad():
        for buffer, before in zip(critic.buffers(), state):
            buffer.copy_(before)
    if any(g is not None and g[1:].any() for g in gradients):
        raise ValueError(INTERACTING)
    _independent.add(critic)


def _leaves(penalty: Tensor, hidden: Sequence[Tensor]) -> Iterator[Tensor]:
    skipped = {id(tensor) for tensor in hidden}
    for node in walk([penalty.grad_fn]):
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in skipped:
            yield leaf


def _check(points: Sequence[Tensor], penalty: NormPenalty, chunk_size: object) -> int:
    if isinstance(chunk_size, bool) or not isinstance(chunk_size, int):
        raise TypeError(f"chunk_size: expected an integer, got {describe(chunk_size)}.")
    if chunk_size < 1:
        raise ValueError(f"chunk_size: expected at least 1, got {chunk_size}.")
    if penalty.reduction not in ("mean", "sum") or penalty.norm == "batch":
        raise ValueError(
            'chunk_size: slices can be added up for reduction "mean" or "sum" and norm "sample" '
            f'or "channel"; got reduction {penalty.reduction!r} and norm {penalty.norm!r}.'
        )
    if is_functional():
        raise RuntimeError(
            "chunk_size: not under torch.compile or torch.func; compile the step without it."
        )
    return chunk_size


def penalty_in_chunks(
    points: Sequence[Tensor], call: CriticCall, penalty: NormPenalty, chunk_size: int
) -> Tensor:
    """The penalty at ``points``, ``chunk_size`` samples at a time."""
    chunk_size = _check(points, penalty, chunk_size)
    batch = points[0].shape[0]
    wants_gradients = torch.is_grad_enabled()
    scale, inverse = scales(call.inv_scale, points[0])
    dtype = compute_dtype(points[0].dtype)
    value = torch.zeros((), dtype=dtype, device=points[0].device)
    sums: dict[int, tuple[Tensor, Tensor]] = {}  # of every leaf: itself, its gradient
    point_gradients: list[list[Tensor]] = [[] for _ in points]
    first = slice(0, min(chunk_size, batch))
    _refuse_interaction(_call_on(call, batch, first), [point[first] for point in points])

    with _frozen_after_first(call.critic) as freeze:
        for start in range(0, batch, chunk_size):
            part = slice(start, min(start + chunk_size, batch))
            versions = _buffer_versions(call.critic)
            inputs = [p[part].detach().requires_grad_(p.requires_grad) for p in points]
            share = (part.stop - part.start) / batch if penalty.reduction == "mean" else 1.0
            slice_call = _call_on(call, batch, part)
            slice_penalty = dataclasses.replace(
                penalty, mask=_slice(penalty.mask, batch, part), normalize_by_mask=False
            )
            result = input_gradients(slice_call, inputs)
            contribution = result.signalled(slice_penalty(result.gradients)) * share
            value = value + contribution.detach()
            if start == 0:
                freeze()
                if not _moving_modules(call.critic) and _buffer_versions(call.critic) != versions:
                    _refuse_unknown_buffers(call.critic)
            if wants_gradients and contribution.requires_grad:
                _accumulate(contribution, scale, inverse, inputs, sums, point_gradients)

    result_value = value
    tensors = [leaf for leaf, _ in sums.values()]
    gradients = [gradient for _, gradient in sums.values()]
    for point, parts in zip(points, point_gradients):
        if point.requires_grad and parts:
            tensors.append(point)
            gradients.append(torch.cat(parts))
    if penalty.normalize_by_mask:
        assert penalty.mask is not None
        factor = penalty.mask.to(dtype).mean().reciprocal()
        result_value = result_value * factor
        gradients = [gradient * factor.to(gradient.dtype) for gradient in gradients]
    if not tensors:
        return result_value
    return _Precomputed.apply(result_value, gradients, *tensors)


def _refuse_unknown_buffers(critic: Callable[..., Any]) -> None:
    """Only spectral norm moves its buffers in a way that can be frozen."""
    if isinstance(critic, torch.nn.Module) and not _has_spectral_norm(critic):
        raise ValueError(
            "chunk_size: a buffer of the critic changes on every forward, so slices would see "
            "different critics. Put that module in evaluation mode, or compute in one piece."
        )


def _has_spectral_norm(critic: torch.nn.Module) -> bool:
    return any(
        type(module).__name__ == "_SpectralNorm"
        or any(type(h).__name__ == "SpectralNorm" for h in module._forward_pre_hooks.values())
        for module in critic.modules()
    )


def _accumulate(
    contribution: Tensor,
    scale: Tensor | None,
    inverse: Tensor | None,
    inputs: Sequence[Tensor],
    sums: dict[int, tuple[Tensor, Tensor]],
    point_gradients: list[list[Tensor]],
) -> None:
    """Adds the gradients of one slice, and lets its graph go."""
    leaves = [leaf for leaf in _leaves(contribution, inputs) if leaf.requires_grad]
    wanted = [*leaves, *(x for x in inputs if x.requires_grad)]
    scaled = contribution if scale is None else contribution * scale
    gradients = torch.autograd.grad(scaled, wanted, allow_unused=True)
    if inverse is not None:
        gradients = tuple(
            None if g is None else (g.to(inverse.dtype) * inverse).to(g.dtype) for g in gradients
        )
    for leaf, gradient in zip(leaves, gradients):
        if gradient is None:
            continue
        if id(leaf) in sums:
            sums[id(leaf)][1].add_(gradient)
        else:
            sums[id(leaf)] = (leaf, gradient.clone())
    with_grad = [k for k, x in enumerate(inputs) if x.requires_grad]
    for k, gradient in zip(with_grad, gradients[len(leaves) :]):
        parts = point_gradients[k]
        parts.append(torch.zeros_like(inputs[k]) if gradient is None else gradient)
