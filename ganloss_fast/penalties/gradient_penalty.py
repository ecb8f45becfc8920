"""Gradient penalties of a critic, of logits that a step has already, or of gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ganloss_fast.checks import Weight, check_choice, describe
from ganloss_fast.penalties import chunked
from ganloss_fast.penalties.critic.call import (
    Critic,
    CriticArgs,
    CriticCall,
    Differentiation,
    InvScale,
    LogitReduction,
    as_logits,
    check_output_weights,
    critic_call,
    differentiation,
)
from ganloss_fast.penalties.critic.gradient import (
    gradients_of,
    input_gradients,
    scales,
    unscaled,
)
from ganloss_fast.penalties.penalty_call import Mask, PenaltyCall, penalty_call
from ganloss_fast.penalties.points import Alpha, Samples, Where, as_samples, penalty_points
from ganloss_fast.penalties.table import R1, NormPenalty, PenaltyLike, Published, resolve_penalty


class PenaltyDetails(NamedTuple):
    """A penalty, and the gradients that it is of."""

    penalty: Tensor  # as gradient_penalty returns it
    gradients: tuple[Tensor, ...]  # [B, ...], one for each input, with their graph


def _details_at(points: Sequence[Tensor], call: CriticCall, penalty: PenaltyCall) -> PenaltyDetails:
    result = input_gradients(call, points)
    return PenaltyDetails(result.signalled(penalty(result.gradients)), tuple(result.gradients))


def _penalty_at(points: Sequence[Tensor], call: CriticCall, penalty: PenaltyCall) -> Tensor:
    if call.how.chunk_size is None:
        return _details_at(points, call, penalty).penalty
    return chunked.penalty_in_chunks(points, call, penalty, call.how.chunk_size)


def _points(
    row: Published,
    real: Samples | None,
    fake: Samples | None,
    at: Where | None,
    alpha: Alpha,
    rng: torch.Generator | None,
) -> tuple[Tensor, ...]:
    if isinstance(fake, (str, NormPenalty)):
        raise TypeError(
            f"fake: expected samples, got {describe(fake)}. Write gradient_penalty(critic, real, "
            "penalty=...), or fake samples before the penalty."
        )
    if rng is not None and torch.compiler.is_compiling():
        raise TypeError(
            "rng: a generator cannot be traced. Draw outside of the compiled function and pass "
            "the result: alpha=torch.rand(len(real), generator=rng)."
        )
    place = row.where if at is None else at
    if alpha is None and place in ("mixed", row.where):
        alpha = row.alpha
    return penalty_points(real, fake, place, alpha, rng)


def gradient_penalty(
    critic: Critic,
    real: Samples | None,
    fake: Samples | None = None,
    penalty: PenaltyLike = "wgan-gp",
    *,
    at: Where | None = None,
    critic_args: CriticArgs = (),
    weight: Weight | None = None,
    mask: Mask = None,
    alpha: Alpha = None,
    rng: torch.Generator | None = None,
    inv_scale: InvScale = None,
    how: Differentiation | None = None,
) -> Tensor:
    """Gradient penalty on a critic: WGAN-GP (Gulrajani et al., 2017), or any of the table.

    .. math:: weight \\cdot E_i[(\\|\\nabla_{\\hat x} D(\\hat x)_i\\|_2 - target)^2]

    with the norm over a whole sample, accumulated in float32 (float64 for float64). A sample
    whose gradient is 0 adds ``target^2`` and no gradient, never NaN. The critic is used as it
    is; on one of convolutions, linear layers and (leaky) ReLU the penalty step costs 4 times a
    forward pass instead of 6, with gradients equal to the bit.

    ::

        gradient_penalty(critic, real, fake)  # WGAN-GP, weight 10
        gradient_penalty(critic, real, fake, WGANGP(weight=lambda_gp, one_sided=True))
        gradient_penalty(critic, real, penalty="dragan")
        gradient_penalty(critic, real, penalty=R1(gamma=1.0), how=Differentiation(chunk_size=8))

    Args:
        critic: called as ``critic(x_hat, *critic_args)``; returns a tensor of logits of any shape,
            or a flat list of them, which are all added up. A :class:`Call` to weight them, or for
            a tuple, which is usually features beside logits. With spectral norm in training mode
            under ``torch.utils.checkpoint``, give ``chunk_size`` (the batch size will do): a
            backward that follows later runs the power iteration once more, and so differentiates
            another critic than the one that was evaluated.
        real: real samples [B, ...], one at least; a tuple for a critic with several inputs, over
            all of which the norm then runs.
        fake: generated samples, alike in shape and device. Detach them in a critic step. Needed
            where the penalty is taken at them, or between both.
        penalty: a name of the table or a value such as ``WGANGP(weight=5.0)``. **A weight is the
            paper's unless you give yours**: code that multiplies outside,
            ``lambda_gp * gradient_penalty(...)``, would have it twice.
        at: where the gradient is taken, if not where the penalty's paper does: ``"mixed"`` between
            real and fake, at ``"real"`` or ``"fake"`` samples, or an :class:`AroundReal`.
        critic_args: further arguments of the critic in this step, such as labels: a tuple, or a
            dict of arguments by name.
        weight: of this call, in place of the penalty's: a number or a 0-d tensor, for schedules.
        mask: multiplied with the gradient before the norm: floating point or bool, broadcastable
            to the samples. For several inputs, one for each, or None. (For
            ``sqrt(sum(mask * g**2))`` give its root.)
        alpha: share of ``real``; see :func:`interpolate`.
        rng: generator for all draws.
        inv_scale: mixed precision with float16: the ``GradScaler``, or 1 / its scale as a number
            or 0-d tensor. The inner gradient is then taken of scaled logits, so that half
            precision does not flush it to zero, and divided in float32, without a host sync.
        how: how the gradient is computed; see :class:`Differentiation`.

    Returns:
        0-d tensor, float32 (float64 for float64 samples), to be added to the critic's loss; for
        ``reduction="none"`` [B], the pixels' map [B, ...], or 0-d for ``norm="batch"``.

    Raises:
        ValueError: if samples do not fit each other, there is no such penalty, the critic's output
            does not depend on its input, or it changes its input in place; with ``chunk_size``, if
            its samples interact (batch normalisation, mini-batch standard deviation, fewer logits
            than samples), its buffers change on every forward, it has backward hooks, or an
            argument cannot be sliced (sparse and nested tensors).
        TypeError: if the critic does not return a tensor or a flat list of tensors.
        UserWarning: once for a critic with fewer logits than samples, such as one that judges
            packs (CTGAN) or returns a mean.
        RuntimeError: if the critic was compiled; compile the penalty step instead. If it is
            sharded by FSDP, or in ``DistributedDataParallel(static_graph=True)``. In the
            backward, by torch: "derivative for ... is not implemented", for operations without a
            second derivative (fused attention, hardsigmoid). Choose the math backend of
            attention, or :func:`approximate_r1_penalty`.
    """
    row = resolve_penalty(penalty)
    asked = penalty_call(row.penalty, weight, mask)
    call = critic_call(critic, critic_args, inv_scale, how)
    return _penalty_at(_points(row, real, fake, at, alpha, rng), call, asked)


def gradient_penalty_details(
    critic: Critic,
    real: Samples | None,
    fake: Samples | None = None,
    penalty: PenaltyLike = "wgan-gp",
    *,
    at: Where | None = None,
    critic_args: CriticArgs = (),
    weight: Weight | None = None,
    mask: Mask = None,
    alpha: Alpha = None,
    rng: torch.Generator | None = None,
    inv_scale: InvScale = None,
    how: Differentiation | None = None,
) -> PenaltyDetails:
    """:func:`gradient_penalty` with the gradients beside it, as CycleGAN's code returns them.

    Args:
        critic: see :func:`gradient_penalty`, also for the others. ``how`` must be without
            ``chunk_size``: slices have no gradients with a graph.

    Returns:
        :class:`PenaltyDetails`: the penalty, and the gradients [B, ...] with their graph, one for
        each input.
    """
    row = resolve_penalty(penalty)
    asked = penalty_call(row.penalty, weight, mask)
    call = critic_call(critic, critic_args, inv_scale, how)
    if call.how.chunk_size is not None:
        raise ValueError(
            "how: gradients computed with chunk_size have no graph, so they cannot be returned; "
            "leave chunk_size out, or call gradient_penalty."
        )
    return _details_at(_points(row, real, fake, at, alpha, rng), call, asked)


def _at_inputs(
    critic: Critic,
    inputs: Samples,
    penalty: PenaltyLike,
    critic_args: CriticArgs,
    weight: Weight | None,
    mask: Mask,
    inv_scale: InvScale,
    how: Differentiation | None,
) -> Tensor:
    value = resolve_penalty(penalty).penalty
    if not isinstance(value, R1):
        raise TypeError(
            f"penalty: expected R1(gamma=...), got {type(value).__name__}. Use gradient_penalty "
            "for another one."
        )
    call = critic_call(critic, critic_args, inv_scale, how)
    return _penalty_at(as_samples("inputs", inputs), call, penalty_call(value, weight, mask))


def r1_penalty(
    critic: Critic,
    inputs: Samples,
    penalty: PenaltyLike = "r1",
    *,
    critic_args: CriticArgs = (),
    weight: Weight | None = None,
    mask: Mask = None,
    inv_scale: InvScale = None,
    how: Differentiation | None = None,
) -> Tensor:
    """R1: the squared gradient norm at real samples (Mescheder et al., 2018).

    .. math:: \\frac{\\gamma}{2} E_i \\|\\nabla_x D(x)_i\\|_2^2

    **The default gamma is the paper's 10**: give yours, not a factor outside:
    ``r1_penalty(critic, real, R1(gamma=1.0))``. A step that has the logits of the real samples
    already uses :func:`penalty_from_logits` and saves a forward pass.

    Args:
        critic: see :func:`gradient_penalty`, also for the other keywords.
        inputs: real samples [B, ...], or a tuple of inputs.
        penalty: an :class:`R1`, or ``"r1"``.
        weight: of this call, in place of ``gamma / 2``.

    Returns:
        As :func:`gradient_penalty`.
    """
    return _at_inputs(critic, inputs, penalty, critic_args, weight, mask, inv_scale, how)


def r2_penalty(
    critic: Critic,
    inputs: Samples,
    penalty: PenaltyLike = "r2",
    *,
    critic_args: CriticArgs = (),
    weight: Weight | None = None,
    mask: Mask = None,
    inv_scale: InvScale = None,
    how: Differentiation | None = None,
) -> Tensor:
    """R2: :func:`r1_penalty` at generated samples (Mescheder et al., 2018), the same function.

    Args:
        critic: see :func:`r1_penalty`, also for the other keywords.
        inputs: generated samples [B, ...], detached from the generator in a critic step.
        penalty: an :class:`R2` or :class:`R1`, or ``"r2"``.
    """
    return _at_inputs(critic, inputs, penalty, critic_args, weight, mask, inv_scale, how)


UNRELATED = (
    "inputs: the logits were not computed from them. Pass the very tensors that went into the "
    "critic, not copies or views of them."
)


class LogitsGiven(NamedTuple):
    call: CriticCall
    outputs: list[Tensor]
    points: tuple[Tensor, ...]


def logits_given(
    logits: Tensor | Sequence[Tensor],
    inputs: Samples,
    output_weights: Sequence[float] | None = None,
    logit_reduction: LogitReduction = "sum",
    inv_scale: InvScale = None,
    how: Differentiation | None = None,
) -> LogitsGiven:
    """The arguments of a function that takes logits in place of a critic, checked."""
    points = as_samples("inputs", inputs)
    for point in points:
        if not point.requires_grad:
            raise ValueError(
                "inputs: they do not require grad, so the logits have no gradient with respect "
                "to them. Call inputs.requires_grad_() before the critic."
            )
    check_output_weights(output_weights)
    check_choice("logit_reduction", logit_reduction, ("sum", "mean"))
    # as_logits stands for the critic, which has run.
    call = CriticCall(
        as_logits, (), {}, output_weights, logit_reduction, inv_scale, differentiation(how)
    )
    if call.how.chunk_size is not None:
        raise ValueError(
            "how: there is no chunk_size here, as the graph of the whole batch exists already; use "
            "r1_penalty or gradient_penalty, which run the critic in slices."
        )
    outputs = as_logits(logits, "logits", output_weights is not None)
    if not any(output.requires_grad for output in outputs):
        raise ValueError(
            "logits: they have no graph; the critic ran under torch.no_grad(), or they were "
            "detached."
        )
    return LogitsGiven(call, outputs, points)


def penalty_from_logits(
    logits: Tensor | Sequence[Tensor],
    inputs: Samples,
    penalty: PenaltyLike = "r1",
    *,
    weight: Weight | None = None,
    mask: Mask = None,
    output_weights: Sequence[float] | None = None,
    logit_reduction: LogitReduction = "sum",
    inv_scale: InvScale = None,
    how: Differentiation | None = None,
) -> Tensor:
    """A gradient penalty from logits that the step has already (StyleGAN, R3GAN): R1 by default.

    ::

        real.requires_grad_()
        logits = critic(real)
        loss = discriminator_loss(logits, ...) + penalty_from_logits(logits, real, R1(gamma=1.0))

    The step pays one forward pass. Not for torch.compile or torch.func: there, use
    :func:`r1_penalty`.

    Args:
        logits: the critic's output, or list of outputs, with its graph; as with a critic, a tuple
            only with ``output_weights``.
        inputs: what they were computed from: tensors that required grad before the critic ran.
        penalty: what is asked of the gradient; where it was taken is yours to say.
        output_weights: factors of the outputs; see :class:`Call`, also for ``logit_reduction``.
        how: without ``chunk_size``: the graph of the whole batch exists already; use
            :func:`r1_penalty` for slices. ``zero_grads="all"`` means every leaf that the logits
            were computed from.

    See :func:`gradient_penalty` for the other arguments.

    Raises:
        ValueError: if ``inputs`` do not require grad, or the logits do not depend on them.
    """
    asked = penalty_call(resolve_penalty(penalty).penalty, weight, mask)
    call, outputs, points = logits_given(
        logits, inputs, output_weights, logit_reduction, inv_scale, how
    )
    result = gradients_of(call, outputs, points, unrelated=UNRELATED)
    return result.signalled(asked(result.gradients))


def penalty_from_grads(
    grads: Samples,
    penalty: PenaltyLike = "r1",
    *,
    weight: Weight | None = None,
    mask: Mask = None,
    inv_scale: InvScale = None,
) -> Tensor:
    """The penalty of gradients that you took yourself; R1 by default.

    Pass them through :func:`cut_second_order` first to make the backward cheaper.

    Args:
        grads: gradients [B, ...] with respect to the samples, or one for each input.
        penalty: what is asked of them; where they were taken is yours to say.
        inv_scale: if they are of scaled logits: the ``GradScaler``, or 1 / its scale.

    See :func:`gradient_penalty` for the other arguments.
    """
    asked = penalty_call(resolve_penalty(penalty).penalty, weight, mask)
    gradients = as_samples("grads", grads)
    return asked(unscaled(gradients, scales(inv_scale, gradients[0])[1]))
