"""Discriminator and generator losses: from logits to segments to one call of the op."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ganloss_fast import ops
from ganloss_fast.checks import Logits, Weight, as_outputs, check_choice, check_flag, check_weight
from ganloss_fast.losses.details import (
    REDUCTIONS,
    LossDetails,
    Reduction,
    Sides,
    flatten,
    loss_details,
)
from ganloss_fast.losses.masks import Mask
from ganloss_fast.losses.reductions import (
    ElementReduction,
    check_reduction,
    masked_sides,
    number_of,
    output_share,
    reduced,
    total_at_once,
    total_of,
    weighted,
)
from ganloss_fast.losses.sides import (
    check_group,
    discriminator_sides,
    generator_sides,
    pair_outputs,
    with_logits,
)
from ganloss_fast.losses.table import Loss, LossLike, Side, resolve_loss

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

# ---- the discriminator's side ------------------------------------------------------------------


def _check_weights(loss: Loss, real_weight: Weight, fake_weight: Weight) -> dict[str, Weight]:
    if type(real_weight) is type(fake_weight) is float and real_weight == fake_weight == 1.0:
        return {"real": 1.0, "fake": 1.0}
    weights = {
        "real": check_weight("real_weight", real_weight),
        "fake": check_weight("fake_weight", fake_weight),
    }
    if loss.relativistic == "paired":
        raise ValueError(
            "real_weight and fake_weight cannot be combined with relativistic='paired': it has "
            "one term for both sides. Multiply the result instead."
        )
    return weights


def discriminator_loss(
    real: Logits,
    fake: Logits,
    loss: LossLike,
    *,
    real_weight: Weight = 1.0,
    fake_weight: Weight = 1.0,
    real_mask: Mask = None,
    fake_mask: Mask = None,
    normalize_by_mask: bool = False,
    reduction: ElementReduction = "mean",
    output_reduction: Reduction = "sum",
    process_group: ProcessGroup | None = None,
) -> Tensor:
    """Discriminator loss over one or many outputs, in one fused call.

    .. math:: L_D = w_r \\, E[\\phi_r(r)] + w_f \\, E[\\phi_f(f)]

    Each term is a mean over all elements of an output; there is no hidden factor 1/2: write
    ``real_weight=0.5, fake_weight=0.5`` for it. Paired relativistic: ``E[phi(r - f)]``. Average
    relativistic: ``w_r E[phi(r - mean f)] + w_f E[phi(-(f - mean r))]``.

    Code that calls its criterion once for each side: :func:`discriminator_side_loss`.

    Args:
        real: logits on real samples: a tensor of any shape, or a sequence of tensors, one for
            each discriminator output. float16, bfloat16, float32 or float64.
        fake: logits on generated samples, structured like ``real``. Shapes may differ from
            ``real`` unless the loss is paired.
        loss: ``"bce"``, ``"hinge"``, ``"least_squares"``, ``"wasserstein"``, another name that
            they go by (``"lsgan"``, ``"vanilla"``, ...), or one of :class:`BCE`, :class:`Hinge`,
            :class:`LeastSquares`, :class:`Wasserstein`.
        real_weight: factor of the real term; a number or a 0-d tensor. A factor belongs in here
            rather than behind the call, where it costs another pass.
        fake_weight: factor of the fake term.
        real_mask: weights of the real logits' elements: floating point or bool, broadcastable to
            the logits; one for all outputs, or a sequence with one (or None) for each. The term
            is then ``E[mask * phi(r)]``; what is masked with 0 has no part in it, infinite or
            not. Not for relativistic losses.
        fake_mask: the same for the fake logits.
        normalize_by_mask: divide each term by the mean of its mask: a mean over what it leaves.
        reduction: over the elements of an output: ``"mean"``, ``"sum"``, ``"none"`` for the
            elements' losses, structured like the logits, or ``"sample"`` for the mean of each
            sample, [B] (CUT, StyleGAN's reports): a pair (real, fake) where the loss has a term
            for each. The last two are plain PyTorch.
        output_reduction: ``"sum"`` or ``"mean"`` over outputs.
        process_group: for an average relativistic loss: the processes over which ``mean r`` and
            ``mean f`` are taken, for instance ``torch.distributed.group.WORLD``. Every rank
            counts alike, as in DistributedDataParallel, and gradients flow through the means to
            all ranks: a step is that of the joined batch. None: this process alone.

    Returns:
        0-d tensor, float32 (float64 if any logits are float64). NaN for an empty output.

    Raises:
        ValueError: if ``real`` and ``fake`` are not structured alike, are empty or nested
            sequences, lie on different devices, or if options do not combine.
        TypeError: if logits are not floating-point tensors.
    """
    loss = resolve_loss(loss)
    weights = _check_weights(loss, real_weight, fake_weight)
    check_group(loss, process_group)
    are_means = reduction == "mean" and real_mask is fake_mask is None and not normalize_by_mask
    if are_means and output_reduction == "sum":
        total = total_at_once(
            loss, ("real", real, weights["real"]), ("fake", fake, weights["fake"])
        )
        if total is not None:
            return total
    reals, fakes = pair_outputs(real, fake, loss)
    count, share = len(reals), output_share(output_reduction, len(reals))
    real_scale = number_of(weights["real"]) * share
    fake_scale = number_of(weights["fake"]) * share
    sides = discriminator_sides(reals, fakes, loss, process_group, real_scale, fake_scale)
    if are_means:
        return total_of(sides, weights)
    check_reduction(reduction, output_reduction, normalize_by_mask)
    masks = {"real_mask": real_mask, "fake_mask": fake_mask}
    sides = masked_sides(sides, masks, loss, count, normalize_by_mask)
    result: Tensor = reduced(sides, count, weights, reduction, not isinstance(real, Tensor))
    return result


def discriminator_loss_details(
    real: Logits,
    fake: Logits,
    loss: LossLike,
    *,
    real_weight: Weight = 1.0,
    fake_weight: Weight = 1.0,
    real_mask: Mask = None,
    fake_mask: Mask = None,
    normalize_by_mask: bool = False,
    output_reduction: Reduction = "sum",
    process_group: ProcessGroup | None = None,
) -> LossDetails:
    """:func:`discriminator_loss` with its parts and the statistics of the logits.

    Nothing is copied to the host: log ``details.stats`` when you next synchronise anyway. The
    statistics are of all logits, masked or not. There is no ``reduction``: the parts are means.

    Returns:
        :class:`LossDetails`.
    """
    loss = resolve_loss(loss)
    weights = _check_weights(loss, real_weight, fake_weight)
    check_group(loss, process_group)
    reals, fakes = pair_outputs(real, fake, loss)
    check_choice("output_reduction", output_reduction, REDUCTIONS)
    sides = discriminator_sides(reals, fakes, loss, process_group)
    masks = {"real_mask": real_mask, "fake_mask": fake_mask}
    sides = masked_sides(sides, masks, loss, len(reals), normalize_by_mask)
    return loss_details(with_logits(sides, reals, fakes), len(reals), weights, output_reduction)


def discriminator_side_loss(
    logits: Logits,
    target_is_real: bool,
    loss: LossLike,
    *,
    weight: Weight = 1.0,
    mask: Mask = None,
    normalize_by_mask: bool = False,
    reduction: ElementReduction = "mean",
    output_reduction: Reduction = "sum",
) -> Tensor:
    """One term of the discriminator loss, for code that calls its criterion once for each side.

    .. math:: w \\, E[\\phi_r(logits)] \\quad or \\quad w \\, E[\\phi_f(logits)]

    ``discriminator_loss(real, fake, loss)`` is the sum of both, and faster than two calls.

    Args:
        logits: of real or of generated samples: a tensor, or a sequence of tensors.
        target_is_real: which of the two terms.
        loss: as in :func:`discriminator_loss`, but not relativistic.
        weight: factor of the term; a number or a 0-d tensor.
        mask: weights of the elements, as ``real_mask`` in :func:`discriminator_loss`.
        normalize_by_mask: divide by the mean of the mask.
        reduction: ``"mean"``, ``"sum"``, ``"none"`` or ``"sample"``; see
            :func:`discriminator_loss`.
        output_reduction: ``"sum"`` or ``"mean"`` over outputs.

    Returns:
        0-d tensor, float32 (float64 if any logits are float64); structured like the logits for
        ``reduction="none"`` and ``"sample"``.

    Raises:
        ValueError: for a relativistic loss, which has no term for one side, and as
            :func:`discriminator_loss`.
        TypeError: if logits are not floating-point tensors.
    """
    loss = resolve_loss(loss)
    check_flag("target_is_real", target_is_real)
    weight = check_weight("weight", weight)
    if loss.relativistic is not None:
        raise ValueError(
            f"loss: relativistic={loss.relativistic!r} compares real with fake logits and has no "
            "term for one side alone; use discriminator_loss(real, fake, loss)."
        )
    side: Side = "real" if target_is_real else "fake"
    is_mean = reduction == "mean" and mask is None and not normalize_by_mask
    if is_mean and output_reduction == "sum":
        total = total_at_once(loss, (side, logits, weight))
        if total is not None:
            return total
    outputs = as_outputs("logits", logits)
    scale = number_of(weight) * output_share(output_reduction, len(outputs))
    sides: Sides = {side: loss.segments(side, outputs, scale)}
    if is_mean:
        return weighted(weight, ops.multi_tensor_loss(sides[side]).total)
    check_reduction(reduction, output_reduction, normalize_by_mask)
    sides = masked_sides(sides, {"mask": mask}, loss, len(outputs), normalize_by_mask)
    is_list = not isinstance(logits, Tensor)
    result: Tensor = reduced(sides, len(outputs), {side: weight}, reduction, is_list)
    return result


# ---- the generator's side ----------------------------------------------------------------------


def generator_logits(
    fake: Logits, real: Logits | None, loss: Loss
) -> tuple[list[Tensor], list[Tensor] | None]:
    if loss.relativistic is None:
        if real is not None:
            raise ValueError(
                f"real: the generator loss of {loss.name} does not use real logits; only "
                "relativistic losses do. Leave it out."
            )
        return as_outputs("fake", fake), None
    if real is None:
        raise ValueError(
            f"real: relativistic={loss.relativistic!r} compares fake with real logits; pass "
            "real=critic(real_samples).detach()."
        )
    reals, fakes = pair_outputs(real, fake, loss)
    return fakes, reals


def generator_loss(
    fake: Logits,
    loss: LossLike,
    *,
    real: Logits | None = None,
    weight: Weight = 1.0,
    mask: Mask = None,
    normalize_by_mask: bool = False,
    reduction: ElementReduction = "mean",
    output_reduction: Reduction = "sum",
    process_group: ProcessGroup | None = None,
) -> Tensor:
    """Generator loss over one or many discriminator outputs, in one fused call.

    .. math:: L_G = w \\, E[\\phi_g(f)]

    Paired relativistic: ``w E[phi(f - r)]``. Average relativistic: ``w (E[phi(f - mean r)] +
    E[phi(-(r - mean f))])``.

    Args:
        fake: logits on generated samples: a tensor, or a sequence of tensors.
        loss: as in :func:`discriminator_loss`.
        real: logits on real samples, for relativistic losses and only for them.
        weight: factor of the loss; a number or a 0-d tensor. ``generator_loss(fake, "bce",
            weight=0.1)`` rather than ``0.1 * generator_loss(fake, "bce")``, which costs another
            pass.
        mask: weights of the elements, as ``fake_mask`` in :func:`discriminator_loss`.
        normalize_by_mask: divide by the mean of the mask.
        reduction: ``"mean"``, ``"sum"``, ``"none"`` or ``"sample"``; see
            :func:`discriminator_loss`. With the last two an average relativistic loss gives a
            pair (real, fake).
        output_reduction: ``"sum"`` or ``"mean"`` over outputs.
        process_group: as in :func:`discriminator_loss`.

    Returns:
        0-d tensor, float32 (float64 if any logits are float64).

    Raises:
        ValueError: if ``real`` is given to a loss that does not use it or is missing, and as
            :func:`discriminator_loss`.
        TypeError: if logits are not floating-point tensors.
    """
    loss = resolve_loss(loss)
    weight = check_weight("weight", weight)
    check_group(loss, process_group)
    is_mean = reduction == "mean" and mask is None and not normalize_by_mask
    if is_mean and output_reduction == "sum" and real is None:
        total = total_at_once(loss, ("generator", fake, weight))
        if total is not None:
            return total
    fakes, reals = generator_logits(fake, real, loss)
    scale = number_of(weight) * output_share(output_reduction, len(fakes))
    sides = generator_sides(fakes, reals, loss, process_group, scale)
    is_list = not isinstance(fake, Tensor)
    if is_mean:
        return weighted(weight, ops.multi_tensor_loss(flatten(sides)).total)
    check_reduction(reduction, output_reduction, normalize_by_mask)
    sides = masked_sides(sides, {"mask": mask}, loss, len(fakes), normalize_by_mask)
    weights = dict.fromkeys(sides, weight)
    result: Tensor = reduced(sides, len(fakes), weights, reduction, is_list)
    return result


def generator_loss_details(
    fake: Logits,
    loss: LossLike,
    *,
    real: Logits | None = None,
    weight: Weight = 1.0,
    mask: Mask = None,
    normalize_by_mask: bool = False,
    output_reduction: Reduction = "sum",
    process_group: ProcessGroup | None = None,
) -> LossDetails:
    """:func:`generator_loss` with its parts and the statistics of the logits.

    Returns:
        :class:`LossDetails`; ``real`` is None unless the loss is average relativistic.
    """
    loss = resolve_loss(loss)
    weight = check_weight("weight", weight)
    check_group(loss, process_group)
    fakes, reals = generator_logits(fake, real, loss)
    check_choice("output_reduction", output_reduction, REDUCTIONS)
    sides = generator_sides(fakes, reals, loss, process_group)
    weights = dict.fromkeys(sides, weight)
    sides = masked_sides(sides, {"mask": mask}, loss, len(fakes), normalize_by_mask)
    return loss_details(
        with_logits(sides, reals or [], fakes), len(fakes), weights, output_reduction
    )
