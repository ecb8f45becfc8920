"""Discriminator and generator losses: from logits to segments to one call of the op."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ganloss_fast import ops, terms
from ganloss_fast.checks import (
    Outputs,
    Weight,
    as_outputs,
    check_choice,
    check_same_device,
    check_weight,
)
from ganloss_fast.details import (
    REDUCTIONS,
    LossDetails,
    Reduction,
    Sides,
    flatten,
    loss_details,
)
from ganloss_fast.distributed import check_process_group, mean_over_ranks
from ganloss_fast.losses import Loss, LossLike, resolve
from ganloss_fast.terms import Segment, Term

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

# ---- building segments -------------------------------------------------------------------------


def _pair_outputs(real: object, fake: object, loss: Loss) -> tuple[list[Tensor], list[Tensor]]:
    reals, fakes = as_outputs("real", real), as_outputs("fake", fake)
    if len(reals) != len(fakes):
        raise ValueError(
            f"real and fake must hold the same number of outputs: got {len(reals)} real and "
            f"{len(fakes)} fake."
        )
    check_same_device("fake", fakes[0], "real", reals[0])
    if loss.relativistic == "paired":
        for k, (r, f) in enumerate(zip(reals, fakes)):
            if r.shape != f.shape:
                raise ValueError(
                    f"paired relativistic losses need equal shapes: output {k} has real "
                    f"{list(r.shape)} and fake {list(f.shape)}."
                )
            if r.dtype != f.dtype:
                raise ValueError(
                    f"paired relativistic losses need equal dtypes: output {k} has real "
                    f"{r.dtype} and fake {f.dtype}."
                )
    return reals, fakes


def _output_share(reduction: Reduction, count: int) -> float:
    if reduction == "sum":
        return 1.0
    check_choice("output_reduction", reduction, REDUCTIONS)
    return 1.0 / count


def _means(
    reals: list[Tensor], fakes: list[Tensor], group: ProcessGroup | None
) -> tuple[list[Tensor], list[Tensor]]:
    """The mean logit of every output, real and fake, as 0-d tensors that carry gradients."""
    segments = [Segment(t, terms.LINEAR, scale=0.0) for t in reals + fakes]
    values = ops.multi_tensor_loss(segments).values
    means = (values if group is None else mean_over_ranks(values, group)).unbind()
    return list(means[: len(reals)]), list(means[len(reals) :])


def _less(logits: list[Tensor], others: list[Tensor], term: Term, scale: float) -> list[Segment]:
    """``scale * mean term(logit - other)`` for every output; other is a map or a mean."""
    return [Segment(a, term, scale, b) for a, b in zip(logits, others)]


def _discriminator_sides(
    reals: list[Tensor],
    fakes: list[Tensor],
    loss: Loss,
    group: ProcessGroup | None,
    real_scale: float = 1.0,
    fake_scale: float = 1.0,
) -> Sides:
    if loss.relativistic is None:
        return {
            "real": loss.real_segments(reals, real_scale),
            "fake": loss.fake_segments(fakes, fake_scale),
        }
    forward, backward = loss.relativistic_terms
    if loss.relativistic == "paired":
        return {"paired": _less(reals, fakes, forward, real_scale)}
    real_means, fake_means = _means(reals, fakes, group)
    return {
        "real": _less(reals, fake_means, forward, real_scale),
        "fake": _less(fakes, real_means, backward, fake_scale),
    }


def _generator_sides(
    fakes: list[Tensor],
    reals: list[Tensor] | None,
    loss: Loss,
    group: ProcessGroup | None,
    scale: float = 1.0,
) -> Sides:
    if reals is None:
        return {"fake": loss.generator_segments(fakes, scale)}
    forward, backward = loss.relativistic_terms
    if loss.relativistic == "paired":
        return {"paired": _less(fakes, reals, forward, scale)}
    real_means, fake_means = _means(reals, fakes, group)
    return {
        "fake": _less(fakes, real_means, forward, scale),
        "real": _less(reals, fake_means, backward, scale),
    }


def _with_logits(sides: Sides, reals: list[Tensor], fakes: list[Tensor]) -> Sides:
    """The sides, and for a paired loss the logits themselves, for their statistics."""
    if "paired" not in sides:
        return sides
    logits = {"real_logits": reals, "fake_logits": fakes}
    return sides | {
        name: [Segment(t, terms.LINEAR, 0.0) for t in tensors] for name, tensors in logits.items()
    }


def _check_group(loss: Loss, group: object) -> None:
    if group is None:
        return
    check_process_group(group)
    if loss.relativistic != "average":
        raise ValueError(
            "process_group: only relativistic='average' takes means over processes; leave it out."
        )


def _check_weights(loss: Loss, real_weight: Weight, fake_weight: Weight) -> bool:
    """Whether a weight is a tensor, so that the total is put together outside the op."""
    if type(real_weight) is type(fake_weight) is float and real_weight == fake_weight == 1.0:
        return False
    check_weight("real_weight", real_weight)
    check_weight("fake_weight", fake_weight)
    if loss.relativistic == "paired":
        raise ValueError(
            "real_weight and fake_weight cannot be combined with relativistic='paired': it has "
            "one term for both sides. Multiply the result instead."
        )
    return isinstance(real_weight, Tensor) or isinstance(fake_weight, Tensor)


# ---- public functions --------------------------------------------------------------------------


def discriminator_loss(
    real: Outputs,
    fake: Outputs,
    loss: LossLike,
    *,
    real_weight: Weight = 1.0,
    fake_weight: Weight = 1.0,
    output_reduction: Reduction = "sum",
    process_group: ProcessGroup | None = None,
) -> Tensor:
    """Discriminator loss over one or many outputs, in one fused call.

    .. math:: L_D = w_r \\, E[\\phi_r(r)] + w_f \\, E[\\phi_f(f)]

    Each term is a mean over all elements of an output; there is no hidden factor 1/2. Paired
    relativistic: ``E[phi(r - f)]``. Average relativistic: ``w_r E[phi(r - mean f)] +
    w_f E[phi(-(f - mean r))]``.

    Args:
        real: logits on real samples: a tensor of any shape, or a sequence of tensors, one for
            each discriminator output. float16, bfloat16, float32 or float64.
        fake: logits on generated samples, structured like ``real``. Shapes may differ from
            ``real`` unless the loss is paired.
        loss: ``"bce"``, ``"hinge"``, ``"least_squares"``, ``"wasserstein"``, or one of
            :class:`BCE`, :class:`Hinge`, :class:`LeastSquares`, :class:`Wasserstein`.
        real_weight: factor of the real term; a number or a 0-d tensor.
        fake_weight: factor of the fake term.
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
    loss = resolve(loss)
    if _check_weights(loss, real_weight, fake_weight):
        return discriminator_loss_details(
            real,
            fake,
            loss,
            real_weight=real_weight,
            fake_weight=fake_weight,
            output_reduction=output_reduction,
            process_group=process_group,
        ).total
    _check_group(loss, process_group)
    reals, fakes = _pair_outputs(real, fake, loss)
    share = _output_share(output_reduction, len(reals))
    sides = _discriminator_sides(
        reals, fakes, loss, process_group, float(real_weight) * share, float(fake_weight) * share
    )
    return ops.multi_tensor_loss(flatten(sides)).total


def discriminator_loss_details(
    real: Outputs,
    fake: Outputs,
    loss: LossLike,
    *,
    real_weight: Weight = 1.0,
    fake_weight: Weight = 1.0,
    output_reduction: Reduction = "sum",
    process_group: ProcessGroup | None = None,
) -> LossDetails:
    """:func:`discriminator_loss` with its parts and the statistics of the logits.

    Nothing is copied to the host: log ``details.stats`` when you next synchronise anyway.

    Returns:
        :class:`LossDetails`.
    """
    loss = resolve(loss)
    _check_weights(loss, real_weight, fake_weight)
    _check_group(loss, process_group)
    reals, fakes = _pair_outputs(real, fake, loss)
    check_choice("output_reduction", output_reduction, REDUCTIONS)
    sides = _discriminator_sides(reals, fakes, loss, process_group)
    weights = {"real": real_weight, "fake": fake_weight}
    return loss_details(_with_logits(sides, reals, fakes), len(reals), weights, output_reduction)


def _generator_outputs(
    fake: Outputs, real: Outputs | None, loss: Loss
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
    reals, fakes = _pair_outputs(real, fake, loss)
    return fakes, reals


def generator_loss(
    fake: Outputs,
    loss: LossLike,
    *,
    real: Outputs | None = None,
    output_reduction: Reduction = "sum",
    process_group: ProcessGroup | None = None,
) -> Tensor:
    """Generator loss over one or many discriminator outputs, in one fused call.

    .. math:: L_G = E[\\phi_g(f)]

    Paired relativistic: ``E[phi(f - r)]``. Average relativistic: ``E[phi(f - mean r)] +
    E[phi(-(r - mean f))]``.

    Args:
        fake: logits on generated samples: a tensor, or a sequence of tensors.
        loss: as in :func:`discriminator_loss`.
        real: logits on real samples, for relativistic losses and only for them.
        output_reduction: ``"sum"`` or ``"mean"`` over outputs.
        process_group: as in :func:`discriminator_loss`.

    Returns:
        0-d tensor, float32 (float64 if any logits are float64).

    Raises:
        ValueError: if ``real`` is given to a loss that does not use it or is missing, and as
            :func:`discriminator_loss`.
        TypeError: if logits are not floating-point tensors.
    """
    loss = resolve(loss)
    _check_group(loss, process_group)
    fakes, reals = _generator_outputs(fake, real, loss)
    share = _output_share(output_reduction, len(fakes))
    sides = _generator_sides(fakes, reals, loss, process_group, share)
    return ops.multi_tensor_loss(flatten(sides)).total


def generator_loss_details(
    fake: Outputs,
    loss: LossLike,
    *,
    real: Outputs | None = None,
    output_reduction: Reduction = "sum",
    process_group: ProcessGroup | None = None,
) -> LossDetails:
    """:func:`generator_loss` with its parts and the statistics of the logits.

    Returns:
        :class:`LossDetails`; ``real`` is None unless the loss is average relativistic.
    """
    loss = resolve(loss)
    _check_group(loss, process_group)
    fakes, reals = _generator_outputs(fake, real, loss)
    check_choice("output_reduction", output_reduction, REDUCTIONS)
    sides = _generator_sides(fakes, reals, loss, process_group)
    return loss_details(_with_logits(sides, reals or [], fakes), len(fakes), {}, output_reduction)
