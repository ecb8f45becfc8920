"""The adversarial losses: a table of terms, and the functions that turn it into segments.

What differs between losses is data: the dataclasses below say which terms a loss gives real
logits, fake logits and the generator. The machinery exists once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from ganloss_fast import ops, terms
from ganloss_fast.checks import (
    Outputs,
    Weight,
    as_outputs,
    check_choice,
    check_number,
    check_same_device,
    check_tensor,
    check_weight,
)
from ganloss_fast.terms import Segment, Term

Label = float | Tensor
Relativistic = Literal["paired", "average"] | None
Reduction = Literal["sum", "mean"]
REDUCTIONS = ("sum", "mean")


class TermPair(NamedTuple):
    """The terms of a relativistic loss: ``phi(z)`` and ``phi(-z)``."""

    forward: Term
    backward: Term


def _check_label(name: str, label: object) -> None:
    if isinstance(label, Tensor):
        check_tensor(name, label)
        if label.requires_grad:
            raise ValueError(f"{name}: no gradient flows to a label map; detach it.")
    else:
        check_number(name, label)


def _check_relativistic(loss: Loss, defaults: dict[str, object]) -> None:
    if loss.relativistic is None:
        return
    check_choice("relativistic", loss.relativistic, ("paired", "average"))
    for name, default in defaults.items():
        value = getattr(loss, name)
        if isinstance(value, Tensor) or value != default:
            raise ValueError(
                f"{name}: cannot be combined with relativistic={loss.relativistic!r}, which "
                f"fixes it; leave it at {default!r}."
            )


def _label_map(name: str, label: Tensor, logits: Tensor) -> Tensor:
    if label.shape != logits.shape:
        raise ValueError(
            f"{name}: a label map must have the shape of the logits, {list(logits.shape)}, "
            f"got {list(label.shape)}."
        )
    check_same_device(name, label, "the logits", logits)
    return label


class Loss:
    """What every loss of the table gives: its segments for each side, with a common scale."""

    name: ClassVar[str]
    relativistic: Relativistic = None

    def real_segments(self, logits: Tensor, scale: float) -> list[Segment]:
        raise NotImplementedError

    def fake_segments(self, logits: Tensor, scale: float) -> list[Segment]:
        raise NotImplementedError

    def generator_segments(self, logits: Tensor, scale: float) -> list[Segment]:
        raise NotImplementedError

    def relativistic_terms(self) -> TermPair:
        raise NotImplementedError


@dataclass(frozen=True)
class BCE(Loss):
    """Binary cross-entropy on logits (Goodfellow et al., 2014).

    .. math:: L_D = E[bce(r, t_r)] + E[bce(f, t_f)], \\qquad L_G = E[bce(f, t_g)]

    with ``bce(z, t) = t softplus(-z) + (1 - t) softplus(z)``. With labels 1, 0, 1 this is the
    logistic (non-saturating) loss. Relativistic (Jolicoeur-Martineau, 2018): softplus(-z).

    Args:
        real_label: target of real logits; a number, or a map shaped like the logits.
        fake_label: target of fake logits in the discriminator loss.
        generator_label: target of fake logits in the generator loss.
        saturating: the minimax generator loss, ``L_G = -E[bce(f, fake_label)]``.
        relativistic: None, ``"paired"`` or ``"average"``.
    """

    name: ClassVar[str] = "bce"
    real_label: Label = 1.0
    fake_label: Label = 0.0
    generator_label: Label = 1.0
    saturating: bool = False
    relativistic: Relativistic = None

    def __post_init__(self) -> None:
        for name in ("real_label", "fake_label", "generator_label"):
            _check_label(name, getattr(self, name))
        _check_relativistic(
            self,
            {"real_label": 1.0, "fake_label": 0.0, "generator_label": 1.0, "saturating": False},
        )
        if self.saturating and (
            isinstance(self.generator_label, Tensor) or self.generator_label != 1.0
        ):
            raise ValueError(
                "generator_label: the saturating generator loss has no label of its own; "
                "leave it at 1.0."
            )

    def real_segments(self, logits: Tensor, scale: float) -> list[Segment]:
        return self._segments("real_label", logits, scale)

    def fake_segments(self, logits: Tensor, scale: float) -> list[Segment]:
        return self._segments("fake_label", logits, scale)

    def generator_segments(self, logits: Tensor, scale: float) -> list[Segment]:
        if self.saturating:
            return self._segments("fake_label", logits, -scale)
        return self._segments("generator_label", logits, scale)

    def _segments(self, label_name: str, logits: Tensor, scale: float) -> list[Segment]:
        label = getattr(self, label_name)
        if isinstance(label, Tensor):
            label = _label_map(label_name, label, logits)
            return [
                Segment(logits, _TOWARDS_REAL, scale, weight=label),
                Segment(logits, _TOWARDS_FAKE, scale, weight=1 - label),
            ]
        if label == 1.0:
            return [Segment(logits, _TOWARDS_REAL, scale)]
        if label == 0.0:
            return [Segment(logits, _TOWARDS_FAKE, scale)]
        return [
            Segment(logits, _TOWARDS_REAL, scale * label),
            Segment(logits, _TOWARDS_FAKE, scale * (1.0 - label)),
        ]

    def relativistic_terms(self) -> TermPair:
        return TermPair(_TOWARDS_REAL, _TOWARDS_FAKE)


_TOWARDS_REAL = terms.softplus(-1.0)  # small where the logit is high
_TOWARDS_FAKE = terms.softplus(1.0)


@dataclass(frozen=True)
class Hinge(Loss):
    """Hinge loss (Lim & Ye, 2017; Miyato et al., 2018).

    .. math:: L_D = E[max(0, m - r)] + E[max(0, m + f)], \\qquad L_G = -E[f]

    The slope at the kink is 0, as torch.relu's. Relativistic: max(0, 1 - z).

    Args:
        margin: ``m``.
        generator_form: ``"linear"``, or ``"hinge"`` for ``L_G = E[max(0, m - f)]``.
        relativistic: None, ``"paired"`` or ``"average"``.
    """

    name: ClassVar[str] = "hinge"
    margin: float = 1.0
    generator_form: Literal["linear", "hinge"] = "linear"
    relativistic: Relativistic = None

    def __post_init__(self) -> None:
        check_number("margin", self.margin)
        check_choice("generator_form", self.generator_form, ("linear", "hinge"))
        _check_relativistic(self, {"margin": 1.0, "generator_form": "linear"})

    def real_segments(self, logits: Tensor, scale: float) -> list[Segment]:
        return [Segment(logits, terms.hinge(1.0, self.margin), scale)]

    def fake_segments(self, logits: Tensor, scale: float) -> list[Segment]:
        return [Segment(logits, terms.hinge(-1.0, self.margin), scale)]

    def generator_segments(self, logits: Tensor, scale: float) -> list[Segment]:
        if self.generator_form == "hinge":
            return [Segment(logits, terms.hinge(1.0, self.margin), scale)]
        return [Segment(logits, terms.LINEAR, -scale)]

    def relativistic_terms(self) -> TermPair:
        return TermPair(terms.hinge(1.0, 1.0), terms.hinge(-1.0, 1.0))


@dataclass(frozen=True)
class LeastSquares(Loss):
    """Least-squares GAN loss (Mao et al., 2017).

    .. math:: L_D = E[(r - b)^2] + E[(f - a)^2], \\qquad L_G = E[(f - c)^2]

    The paper's factor 1/2 is not applied: multiply the result to get it. Relativistic:
    (z - 1)^2, so the targets are +1 and -1.

    Args:
        real_label: ``b``, the value the discriminator should give real samples; a number, or a
            map shaped like the logits.
        fake_label: ``a``, the value it should give fake samples.
        generator_label: ``c``, the value the generator wants its samples to get.
        relativistic: None, ``"paired"`` or ``"average"``.
    """

    name: ClassVar[str] = "least_squares"
    real_label: Label = 1.0
    fake_label: Label = 0.0
    generator_label: Label = 1.0
    relativistic: Relativistic = None

    def __post_init__(self) -> None:
        for name in ("real_label", "fake_label", "generator_label"):
            _check_label(name, getattr(self, name))
        _check_relativistic(self, {"real_label": 1.0, "fake_label": 0.0, "generator_label": 1.0})

    def real_segments(self, logits: Tensor, scale: float) -> list[Segment]:
        return self._segments("real_label", logits, scale)

    def fake_segments(self, logits: Tensor, scale: float) -> list[Segment]:
        return self._segments("fake_label", logits, scale)

    def generator_segments(self, logits: Tensor, scale: float) -> list[Segment]:
        return self._segments("generator_label", logits, scale)

    def _segments(self, label_name: str, logits: Tensor, scale: float) -> list[Segment]:
        label = getattr(self, label_name)
        if not isinstance(label, Tensor):
            return [Segment(logits, terms.squared(label), scale)]
        label = _label_map(label_name, label, logits)
        dtype = torch.promote_types(label.dtype, logits.dtype)  # never round the labels
        return [Segment(logits.to(dtype), terms.squared(0.0), scale, b=label.to(dtype))]

    def relativistic_terms(self) -> TermPair:
        return TermPair(terms.squared(1.0), terms.squared(-1.0))


@dataclass(frozen=True)
class Wasserstein(Loss):
    """Wasserstein critic loss (Arjovsky et al., 2017), with the drift term of Karras et al., 2018.

    .. math:: L_D = E[f] - E[r] + \\epsilon E[r^2], \\qquad L_G = -E[f]

    Add :func:`ganloss_fast.gradient_penalty` for WGAN-GP.

    Args:
        drift: ``epsilon``, which keeps real logits near 0 (0.001 in progressive GAN).
    """

    name: ClassVar[str] = "wasserstein"
    drift: float = 0.0

    def __post_init__(self) -> None:
        check_number("drift", self.drift)

    def real_segments(self, logits: Tensor, scale: float) -> list[Segment]:
        segments = [Segment(logits, terms.LINEAR, -scale)]
        if self.drift != 0.0:
            segments.append(Segment(logits, terms.squared(0.0), scale * self.drift))
        return segments

    def fake_segments(self, logits: Tensor, scale: float) -> list[Segment]:
        return [Segment(logits, terms.LINEAR, scale)]

    def generator_segments(self, logits: Tensor, scale: float) -> list[Segment]:
        return [Segment(logits, terms.LINEAR, -scale)]


LossLike = str | Loss
LOSSES: dict[str, Loss] = {
    "bce": BCE(),
    "hinge": Hinge(),
    "least_squares": LeastSquares(),
    "wasserstein": Wasserstein(),
}


def resolve(loss: LossLike) -> Loss:
    """The loss that a name stands for."""
    if isinstance(loss, str):
        if loss not in LOSSES:
            raise ValueError(f"loss: expected one of {', '.join(LOSSES)}, got {loss!r}.")
        return LOSSES[loss]
    if not isinstance(loss, Loss):
        raise TypeError(f"loss: expected a name or a loss such as Hinge(), got {loss!r}.")
    return loss


# ---- statistics and details --------------------------------------------------------------------


class LogitStatistics(NamedTuple):
    """Detached statistics of the logits of each of K outputs, on their device."""

    mean: Tensor  # [K]
    standard_deviation: Tensor  # [K], of the population
    sign: Tensor  # [K], mean of sign(logit): what adaptive augmentation steers by
    nonfinite: Tensor  # [K], number of NaN and infinite logits


class LossStatistics(NamedTuple):
    """Statistics of the logits, None for a side that the loss did not see."""

    real: LogitStatistics | None
    fake: LogitStatistics | None


class LossDetails(NamedTuple):
    """A loss and its parts over K outputs. All but ``stats`` are differentiable.

    ``real`` and ``fake`` are the unweighted terms; they are None where a loss has no separate
    term for that side (a paired relativistic loss, the real side of most generator losses).
    """

    total: Tensor  # []
    real: Tensor | None  # [K]
    fake: Tensor | None  # [K]
    per_output: Tensor  # [K], weighted; total is their sum or mean
    stats: LossStatistics


Sides = dict[str, list[Segment]]
"""The segments of each side of a loss, output by output, as many for every output."""


def _side_terms(segments: list[Segment], values: Tensor, outputs: int) -> Tensor:
    """[K]: the term of every output from the values of one side's segments."""
    per_output = len(segments) // outputs
    columns = values.view(outputs, per_output).unbind(1)
    scaled = [segment.scale * column for segment, column in zip(segments, columns)]
    return scaled[0] if per_output == 1 else torch.stack(scaled).sum(0)


def _side_statistics(rows: Tensor, outputs: int) -> LogitStatistics:
    """The first segment of every output sees its logits."""
    return LogitStatistics(*rows[:: len(rows) // outputs].unbind(1))


def _details(
    sides: Sides, outputs: int, weights: dict[str, Weight], reduction: Reduction
) -> LossDetails:
    """Computes all sides in one call and puts the parts together.

    ``sides`` may hold "real", "fake" and "paired" (one term for both) and, with scale 0,
    "real_logits" and "fake_logits", which are there for their statistics only.
    """
    computed = ops.multi_tensor_loss(_flatten(sides), with_statistics=True)
    parts: dict[str, Tensor] = {}
    statistics: dict[str, LogitStatistics] = {}
    first = 0
    for name, segments in sides.items():
        last = first + len(segments)
        statistics[name] = _side_statistics(computed.statistics[first:last], outputs)
        if not name.endswith("_logits"):
            parts[name] = _side_terms(segments, computed.values[first:last], outputs)
        first = last
    weighted = [weights.get(name, 1.0) * part for name, part in parts.items()]
    per_output = weighted[0] if len(weighted) == 1 else weighted[0] + weighted[1]
    return LossDetails(
        total=per_output.sum() if reduction == "sum" else per_output.mean(),
        real=parts.get("real"),
        fake=parts.get("fake"),
        per_output=per_output,
        stats=LossStatistics(
            real=statistics.get("real", statistics.get("real_logits")),
            fake=statistics.get("fake", statistics.get("fake_logits")),
        ),
    )


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
    check_choice("output_reduction", reduction, REDUCTIONS)
    return 1.0 if reduction == "sum" else 1.0 / count


def _means(reals: list[Tensor], fakes: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The mean logit of every output, real and fake, as 0-d tensors that carry gradients."""
    values = ops.multi_tensor_loss([Segment(t, terms.LINEAR) for t in reals + fakes]).values
    means = values.unbind()
    return list(means[: len(reals)]), list(means[len(reals) :])


def _less(logits: list[Tensor], others: list[Tensor], term: Term, scale: float) -> list[Segment]:
    """``scale * mean term(logit - other)`` for every output; other is a map or a mean."""
    return [Segment(a, term, scale, b) for a, b in zip(logits, others)]


def _discriminator_sides(
    reals: list[Tensor], fakes: list[Tensor], loss: Loss, real_scale: float, fake_scale: float
) -> Sides:
    if loss.relativistic is None:
        return {
            "real": [s for r in reals for s in loss.real_segments(r, real_scale)],
            "fake": [s for f in fakes for s in loss.fake_segments(f, fake_scale)],
        }
    forward, backward = loss.relativistic_terms()
    if loss.relativistic == "paired":
        return {"paired": _less(reals, fakes, forward, real_scale)}
    real_means, fake_means = _means(reals, fakes)
    return {
        "real": _less(reals, fake_means, forward, real_scale),
        "fake": _less(fakes, real_means, backward, fake_scale),
    }


def _generator_sides(
    fakes: list[Tensor], reals: list[Tensor] | None, loss: Loss, scale: float
) -> Sides:
    if reals is None:
        return {"fake": [s for f in fakes for s in loss.generator_segments(f, scale)]}
    forward, backward = loss.relativistic_terms()
    if loss.relativistic == "paired":
        return {"paired": _less(fakes, reals, forward, scale)}
    real_means, fake_means = _means(reals, fakes)
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
        name: [Segment(t.detach(), terms.LINEAR, 0.0) for t in tensors]
        for name, tensors in logits.items()
    }


def _flatten(sides: Sides) -> list[Segment]:
    return [segment for segments in sides.values() for segment in segments]


def _check_weights(loss: Loss, real_weight: Weight, fake_weight: Weight) -> bool:
    """Whether a weight is a tensor, so that the total is put together outside the op."""
    check_weight("real_weight", real_weight)
    check_weight("fake_weight", fake_weight)
    has_tensor = isinstance(real_weight, Tensor) or isinstance(fake_weight, Tensor)
    if loss.relativistic == "paired" and (has_tensor or real_weight != 1 or fake_weight != 1):
        raise ValueError(
            "real_weight and fake_weight cannot be combined with relativistic='paired': it has "
            "one term for both sides. Multiply the result instead."
        )
    return has_tensor


# ---- public functions --------------------------------------------------------------------------


def discriminator_loss(
    real: Outputs,
    fake: Outputs,
    loss: LossLike,
    *,
    real_weight: Weight = 1.0,
    fake_weight: Weight = 1.0,
    output_reduction: Reduction = "sum",
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
        ).total
    reals, fakes = _pair_outputs(real, fake, loss)
    share = _output_share(output_reduction, len(reals))
    sides = _discriminator_sides(reals, fakes, loss, real_weight * share, fake_weight * share)
    return ops.multi_tensor_loss(_flatten(sides)).total


def discriminator_loss_details(
    real: Outputs,
    fake: Outputs,
    loss: LossLike,
    *,
    real_weight: Weight = 1.0,
    fake_weight: Weight = 1.0,
    output_reduction: Reduction = "sum",
) -> LossDetails:
    """:func:`discriminator_loss` with its parts and the statistics of the logits.

    Nothing is copied to the host: log ``details.stats`` when you next synchronise anyway.

    Returns:
        :class:`LossDetails`.
    """
    loss = resolve(loss)
    _check_weights(loss, real_weight, fake_weight)
    reals, fakes = _pair_outputs(real, fake, loss)
    check_choice("output_reduction", output_reduction, REDUCTIONS)
    sides = _discriminator_sides(reals, fakes, loss, 1.0, 1.0)
    weights = {"real": real_weight, "fake": fake_weight}
    return _details(_with_logits(sides, reals, fakes), len(reals), weights, output_reduction)


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

    Returns:
        0-d tensor, float32 (float64 if any logits are float64).

    Raises:
        ValueError: if ``real`` is given to a loss that does not use it or is missing, and as
            :func:`discriminator_loss`.
        TypeError: if logits are not floating-point tensors.
    """
    loss = resolve(loss)
    fakes, reals = _generator_outputs(fake, real, loss)
    share = _output_share(output_reduction, len(fakes))
    return ops.multi_tensor_loss(_flatten(_generator_sides(fakes, reals, loss, share))).total


def generator_loss_details(
    fake: Outputs,
    loss: LossLike,
    *,
    real: Outputs | None = None,
    output_reduction: Reduction = "sum",
) -> LossDetails:
    """:func:`generator_loss` with its parts and the statistics of the logits.

    Returns:
        :class:`LossDetails`; ``real`` is None unless the loss is average relativistic.
    """
    loss = resolve(loss)
    fakes, reals = _generator_outputs(fake, real, loss)
    check_choice("output_reduction", output_reduction, REDUCTIONS)
    sides = _generator_sides(fakes, reals, loss, 1.0)
    return _details(_with_logits(sides, reals or [], fakes), len(fakes), {}, output_reduction)


def split_outputs(outputs: Sequence[Tensor] | Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Halves every output along its batch: of one forward over ``cat([real, fake])``.

    Args:
        outputs: logits of a batch whose first half is real; a tensor or a sequence.

    Returns:
        The real and the fake logits, as views.

    Raises:
        ValueError: if a batch cannot be halved.
    """
    reals, fakes = [], []
    for k, tensor in enumerate(as_outputs("outputs", outputs)):
        if tensor.dim() == 0 or tensor.shape[0] % 2:
            raise ValueError(
                f"outputs[{k}]: expected an even batch, got shape {list(tensor.shape)}."
            )
        first, second = tensor.chunk(2)
        reals.append(first)
        fakes.append(second)
    return reals, fakes
