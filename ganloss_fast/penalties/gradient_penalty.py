"""Gradient penalties: WGAN-GP and its relatives, R1, R2, and the same from logits or gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ganloss_fast.checks import Weight
from ganloss_fast.graph_cut.second_order import GraphCut, ZeroGrads
from ganloss_fast.penalties import chunked
from ganloss_fast.penalties.critic.arguments import BatchArgs
from ganloss_fast.penalties.critic.gradient import (
    CriticCall,
    InvScale,
    LogitReduction,
    as_logits,
    gradients_of,
    input_gradients,
    is_functional,
    refuse_forward_mode,
    scales,
    unscaled,
)
from ganloss_fast.penalties.norm_penalty import EpsAt, Mask, Norm, NormPenalty, PenaltyReduction
from ganloss_fast.penalties.points import Alpha, Samples, Sampling, as_samples, penalty_points


def _penalty_at(
    points: Sequence[Tensor], call: CriticCall, penalty: NormPenalty, chunk_size: int | None
) -> Tensor:
    if not is_functional():
        refuse_forward_mode(points)
    if chunk_size is not None:
        return chunked.penalty_in_chunks(points, call, penalty, chunk_size)
    result = input_gradients(call, points)
    return result.signalled(penalty(result.gradients))


def gradient_penalty(
    critic: Callable[..., Any],
    real: Samples | None,
    fake: Samples | None = None,
    *,
    critic_args: Sequence = (),
    critic_kwargs: Mapping | None = None,
    weight: Weight = 10.0,
    target: float = 1.0,
    one_sided: bool = False,
    power: float = 2.0,
    sampling: Sampling = "mixed",
    alpha: Alpha = None,
    rng: torch.Generator | None = None,
    norm: Norm = "sample",
    eps: float = 0.0,
    eps_at: EpsAt = "root",
    mask: Mask = None,
    normalize_by_mask: bool = False,
    reduction: PenaltyReduction = "mean",
    output_weights: Sequence[float] | None = None,
    logit_reduction: LogitReduction = "sum",
    inv_scale: InvScale = None,
    graph_cut: GraphCut = "auto",
    zero_grads: ZeroGrads = "stock",
    chunk_size: int | None = None,
    batch_args: BatchArgs = None,
) -> Tensor:
    """Gradient penalty on a critic (WGAN-GP; Gulrajani et al., 2017), and its variants.

    .. math:: weight \\cdot E_i[(\\|\\nabla_{\\hat x} D(\\hat x)_i\\|_2 - target)^2]

    with the norm over a whole sample, accumulated in float32 (float64 for float64). A sample
    whose gradient is 0 adds ``target^2`` and no gradient, never NaN. The critic is used as it
    is; on one of convolutions, linear layers and (leaky) ReLU the penalty step costs 4 times a
    forward pass instead of 6 (``graph_cut``), with gradients equal to the bit.

    ============================================  ==============================================
    published variant                             keywords
    ============================================  ==============================================
    WGAN-GP                                       the defaults
    WGAN-LP (Petzka et al., 2018)                 ``one_sided=True``
    DRAGAN (Kodali et al., 2017)                  ``sampling="dragan"``
    zero-centred, 0-GP                            ``target=0``
    progressive GAN, TF-GAN (norm over target)    ``weight=10 / target**2``
    WGAN-div (Wu et al., 2018), p = 6, k = 2      ``sampling="real"`` plus ``"fake"``, ``target=0,
                                                  power=6, weight=1``
    maximum gradient penalty                      ``target=0, reduction="max"``
    per pixel (mmagic, BasicSR)                   ``norm="channel"``, with their mask and
                                                  ``normalize_by_mask=True``
    torchgan                                      ``norm="batch", alpha="batch"``
    pix2pix / CycleGAN code                       ``eps=1e-16, eps_at="gradient"``
    compare_gan / TF-GAN                          ``eps=1e-4`` / ``eps=1e-10``
    ``sqrt(sum(mask * g**2))`` (soft masks)       ``mask=mask.sqrt()``
    weights per sample                            ``reduction="none"``, then your weighted mean
    ============================================  ==============================================

    Args:
        critic: called as ``critic(x_hat, *critic_args, **critic_kwargs)``; returns a tensor of
            logits of any shape, or a flat list of them (a tuple only with ``output_weights``: it
            is usually features beside logits). All logits are added up. With spectral norm in
            training mode under ``torch.utils.checkpoint``, give ``chunk_size`` (the batch size
            will do): a backward that follows later runs the power iteration once more, and so
            differentiates another critic than the one that was evaluated.
        real: real samples [B, ...], one at least; a tuple for a critic with several inputs, over
            all of which the norm then runs.
        fake: generated samples, alike in shape and device. Detach them in a critic step. Not
            needed for ``sampling`` ``"real"`` and ``"dragan"``.
        critic_args: further arguments of the critic, such as labels.
        critic_kwargs: its keyword arguments.
        weight: lambda; a number or a 0-d tensor. **The default is the paper's 10**: code that
            multiplies outside, ``lambda_gp * gradient_penalty(...)``, would have it twice. Give it
            here, ``weight=lambda_gp``, or say ``weight=1.0``.
        target: the norm that is asked for.
        one_sided: penalise only norms above ``target``.
        power: exponent of the distance to ``target``.
        sampling: where: ``"mixed"`` between real and fake, at ``"real"`` or ``"fake"`` samples,
            or ``"dragan"``, around real ones; a :class:`Dragan` to say how.
        alpha: share of ``real``; see :func:`interpolate`.
        rng: generator for all draws.
        norm: over a ``"sample"``, over the ``"channel"`` axis for each pixel, or over the whole
            ``"batch"``.
        eps: added inside the root (``eps_at="root"``) or to every component of the gradient
            (``eps_at="gradient"``). With 0, the norm's gradient at 0 is 0.
        mask: multiplied with the gradient before the norm: floating point or bool, broadcastable
            to the samples. For several inputs, one for each, or None.
        normalize_by_mask: divide the penalty by the mask's mean.
        reduction: of the per-norm penalties: ``"mean"``, ``"sum"``, ``"max"``, or ``"none"`` for
            [B] (the pixels' map for ``norm="channel"``).
        output_weights: factors of the outputs of a critic that returns a list.
        logit_reduction: ``"sum"``, as everybody does, or ``"mean"`` over each output's logits.
        inv_scale: mixed precision with float16: the ``GradScaler``, or 1 / its scale as a number
            or 0-d tensor. The inner gradient is then taken of scaled logits, so that half
            precision does not flush it to zero, and divided in float32, without a host sync.
        graph_cut: ``"auto"`` removes what carries exact zeros: gradients equal to the bit.
            ``"fast"`` also computes the weight gradients of convolutions several times faster,
            equal to rounding. ``"off"`` leaves the autograd graph alone. See
            :func:`cut_second_order`.
        zero_grads: ``"stock"``, ``"all"`` or ``"none"``; see :func:`cut_second_order`. ``"all"``
            repairs a penalty-only backward under ``DistributedDataParallel``.
        chunk_size: samples at a time: bounds the memory to that of so many samples. The
            gradients are then computed in this call and are those of the whole batch up to
            rounding; only a first-order backward follows, and one with ``create_graph=True``
            raises. Hooks of parameters run in that backward, once. Nothing is computed twice, but
            calls 1, 2, 4, 8, ... with a critic object add two steps on a slice, which ask of rows
            drawn from the batch whether samples interact (an interaction that is zero to second
            order there, or between other rows, is not seen); a lambda made for every step pays
            that every time. Hooks of tensors inside the critic run for every slice. Not under
            FSDP. Spectral norms iterate once, and stand still for the other slices and for
            checkpoints. For ``reduction`` ``"mean"`` and ``"sum"``, not ``norm="batch"``.
        batch_args: with ``chunk_size``, which of the critic's further arguments hold one row for
            each sample and are sliced with the batch: positions in ``critic_args`` and names in
            ``critic_kwargs``. None: every tensor and array with as many rows as there are
            samples, inside lists, tuples and dicts too. A list of as many other entries (captions)
            has to be named, or left out: ``()`` names none.

    Returns:
        0-d tensor, float32 (float64 for float64 samples), to be added to the critic's loss; for
        ``reduction="none"`` [B], the pixels' map [B, ...], or 0-d for ``norm="batch"``.

    Raises:
        ValueError: if samples do not fit each other, an option is not one of those above, the
            critic's output does not depend on its input, or it changes its input in place; with
            ``chunk_size``, if its samples interact (batch normalisation, mini-batch standard
            deviation, fewer logits than samples), its buffers change on every forward, it has
            backward hooks, or an argument cannot be sliced (sparse and nested tensors).
        TypeError: if the critic does not return a tensor or a flat list of tensors.
        UserWarning: once for a critic with fewer logits than samples, such as one that judges
            packs (CTGAN) or returns a mean.
        RuntimeError: if the critic was compiled; compile the penalty step instead. If it is
            sharded by FSDP, or in ``DistributedDataParallel(static_graph=True)``. In the
            backward, by torch: "derivative for ... is not implemented", for operations without a
            second derivative (fused attention, hardsigmoid). Choose the math backend of
            attention, or :func:`approximate_r1_penalty`.
    """
    penalty = NormPenalty(
        weight, target, one_sided, power, norm, eps, eps_at, mask, normalize_by_mask, reduction
    )
    call = CriticCall(
        critic,
        critic_args,
        {} if critic_kwargs is None else critic_kwargs,
        output_weights,
        logit_reduction,
        inv_scale,
        graph_cut,
        zero_grads,
        batch_args,
    )
    if rng is not None and torch.compiler.is_compiling():
        raise TypeError(
            "rng: a generator cannot be traced. Draw outside of the compiled function and pass "
            "the result: alpha=torch.rand(len(real), generator=rng)."
        )
    points = penalty_points(real, fake, sampling, alpha, rng)
    return _penalty_at(points, call, penalty, chunk_size)


def r1_penalty(
    critic: Callable[..., Any],
    inputs: Samples,
    *,
    critic_args: Sequence = (),
    critic_kwargs: Mapping | None = None,
    weight: Weight = 5.0,
    norm: Norm = "sample",
    mask: Mask = None,
    normalize_by_mask: bool = False,
    reduction: PenaltyReduction = "mean",
    output_weights: Sequence[float] | None = None,
    logit_reduction: LogitReduction = "sum",
    inv_scale: InvScale = None,
    graph_cut: GraphCut = "auto",
    zero_grads: ZeroGrads = "stock",
    chunk_size: int | None = None,
    batch_args: BatchArgs = None,
) -> Tensor:
    """R1: the squared gradient norm at real samples (Mescheder et al., 2018).

    .. math:: weight \\cdot E_i \\|\\nabla_x D(x)_i\\|_2^2

    StyleGAN's gamma is ``weight = gamma / 2``, and **the default weight is 5**: give yours inside,
    ``r1_penalty(critic, real, weight=gamma / 2)``, not as a factor outside. A step that has the
    logits of the real samples already uses :func:`penalty_from_logits` and saves a forward pass.

    Args:
        critic: see :func:`gradient_penalty`, also for the other keywords.
        inputs: real samples [B, ...], or a tuple of inputs.

    Returns:
        As :func:`gradient_penalty`, of which this is ``target=0, sampling="real"``.
    """
    penalty = NormPenalty(
        weight,
        0.0,
        norm=norm,
        mask=mask,
        normalize_by_mask=normalize_by_mask,
        reduction=reduction,
    )
    call = CriticCall(
        critic,
        critic_args,
        {} if critic_kwargs is None else critic_kwargs,
        output_weights,
        logit_reduction,
        inv_scale,
        graph_cut,
        zero_grads,
        batch_args,
    )
    return _penalty_at(as_samples("inputs", inputs), call, penalty, chunk_size)


def r2_penalty(critic: Callable[..., Any], inputs: Samples, **options: Any) -> Tensor:
    """R2: :func:`r1_penalty` at generated samples (Mescheder et al., 2018), the same function.

    Args:
        critic: see :func:`r1_penalty`, also for ``options``.
        inputs: generated samples [B, ...], detached from the generator in a critic step.
    """
    return r1_penalty(critic, inputs, **options)


def penalty_from_logits(
    logits: Tensor | Sequence[Tensor],
    inputs: Samples,
    *,
    weight: Weight = 5.0,
    target: float = 0.0,
    one_sided: bool = False,
    power: float = 2.0,
    norm: Norm = "sample",
    eps: float = 0.0,
    eps_at: EpsAt = "root",
    mask: Mask = None,
    normalize_by_mask: bool = False,
    reduction: PenaltyReduction = "mean",
    output_weights: Sequence[float] | None = None,
    logit_reduction: LogitReduction = "sum",
    inv_scale: InvScale = None,
    graph_cut: GraphCut = "auto",
    zero_grads: ZeroGrads = "stock",
) -> Tensor:
    """A gradient penalty from logits that the step has already (StyleGAN, R3GAN): R1 by default.

    ::

        real.requires_grad_()
        logits = critic(real)
        loss = discriminator_loss(logits, ...) + penalty_from_logits(logits, real)

    The step pays one forward pass. Not for torch.compile or torch.func: there, use
    :func:`r1_penalty`.

    Args:
        logits: the critic's output, or list of outputs, with its graph; as with a critic, a tuple
            only with ``output_weights``. There is no ``chunk_size`` here: the graph of the whole
            batch exists already. Use :func:`r1_penalty` for slices.
        inputs: what they were computed from: tensors that required grad before the critic ran.
        zero_grads: ``"all"`` means every leaf that the logits were computed from.

    See :func:`gradient_penalty` for the other arguments.

    Raises:
        ValueError: if ``inputs`` do not require grad, or the logits do not depend on them.
    """
    penalty = NormPenalty(
        weight, target, one_sided, power, norm, eps, eps_at, mask, normalize_by_mask, reduction
    )
    points = as_samples("inputs", inputs)
    for point in points:
        if not point.requires_grad:
            raise ValueError(
                "inputs: they do not require grad, so the logits have no gradient with respect "
                "to them. Call inputs.requires_grad_() before the critic."
            )
    call = CriticCall(
        as_logits,  # stands for the critic, which has run
        output_weights=output_weights,
        logit_reduction=logit_reduction,
        inv_scale=inv_scale,
        graph_cut=graph_cut,
        zero_grads=zero_grads,
    )
    outputs = as_logits(logits, "logits", output_weights is not None)
    if not any(output.requires_grad for output in outputs):
        raise ValueError(
            "logits: they have no graph; the critic ran under torch.no_grad(), or they were "
            "detached."
        )
    unrelated = (
        "inputs: the logits were not computed from them. Pass the very tensors that went into the "
        "critic, not copies or views of them."
    )
    result = gradients_of(call, outputs, points, unrelated=unrelated)
    return result.signalled(penalty(result.gradients))


def penalty_from_grads(
    grads: Samples,
    *,
    weight: Weight = 5.0,
    target: float = 0.0,
    one_sided: bool = False,
    power: float = 2.0,
    norm: Norm = "sample",
    eps: float = 0.0,
    eps_at: EpsAt = "root",
    mask: Mask = None,
    normalize_by_mask: bool = False,
    reduction: PenaltyReduction = "mean",
    inv_scale: InvScale = None,
) -> Tensor:
    """The penalty of gradients that you took yourself; R1 by default.

    Pass them through :func:`cut_second_order` first to make the backward cheaper. For code that
    returns the gradients beside the penalty, as CycleGAN's ``cal_gradient_penalty``.

    Args:
        grads: gradients [B, ...] with respect to the samples, or one for each input.
        inv_scale: if they are of scaled logits: the ``GradScaler``, or 1 / its scale.

    See :func:`gradient_penalty` for the other arguments.
    """
    penalty = NormPenalty(
        weight, target, one_sided, power, norm, eps, eps_at, mask, normalize_by_mask, reduction
    )
    gradients = as_samples("grads", grads)
    return penalty(unscaled(gradients, scales(inv_scale, gradients[0])[1]))
