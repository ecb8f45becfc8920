"""The table of adversarial losses.

What differs between losses is data: the dataclasses below say which terms a loss gives real
logits, fake logits and the generator. The machinery that computes them is in
:mod:`ganloss_fast.losses.adversarial`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from torch import Tensor

from ganloss_fast.checks import (
    Value,
    broadcasts,
    check_choice,
    check_flag,
    check_number_field,
    check_same_device,
    check_tensor,
    describe,
    quoted,
    suggestion,
)
from ganloss_fast.ops import terms
from ganloss_fast.ops.terms import Segment, Summands, Term, compute_dtype

Label = float | Tensor
Relativistic = Literal["paired", "average"] | None
Side = Literal["real", "fake", "generator"]
"""The discriminator loss on real and on fake logits, and the generator's on fake ones."""


class TermPair(NamedTuple):
    """The terms of a relativistic loss: ``phi(z)`` and ``phi(-z)``."""

    forward: Term
    backward: Term


def _check_label(loss: Loss, name: str) -> None:
    label = getattr(loss, name)
    if not isinstance(label, Tensor):
        check_number_field(loss, name)
        return
    check_tensor(name, label)
    if label.requires_grad:
        raise ValueError(f"{name}: no gradient flows to a label map; detach it.")


def _check_relativistic(loss: Loss, defaults: dict[str, object]) -> None:
    if check_flag("detach_means", loss.detach_means) and loss.relativistic != "average":
        raise ValueError("detach_means: only relativistic='average' has means; leave it out.")
    if loss.relativistic is None:
        return
    check_choice("relativistic", loss.relativistic, ("paired", "average"))
    for name, default in defaults.items():
        value = getattr(loss, name)
        if isinstance(value, Tensor) or value != default:
            raise ValueError(
                f"{name}: cannot be combined with relativistic={loss.relativistic!r}, which "
                f"fixes it; leave it at {default}."
            )


def _label_map(name: str, label: Tensor, logits: Tensor) -> Tensor:
    """The label of every logit: shaped like the logits."""
    check_same_device(name, label, "the logits", logits)
    if label.shape == logits.shape:
        return label
    if not broadcasts(label, logits):
        raise ValueError(
            f"{name}: a label map must broadcast to the shape of the logits, "
            f"{list(logits.shape)}, with as many dimensions, or have none; got "
            f"{list(label.shape)}."
        )
    return label.expand(logits.shape)


def _each(outputs: list[Tensor], summands: Summands, scale: float) -> list[Segment]:
    return [Segment(t, term, scale * factor) for t in outputs for term, factor in summands]


class Loss(Value, ABC):
    """What every loss of the table gives: what it takes the mean of, for each side."""

    name: ClassVar[str]
    relativistic_terms: ClassVar[TermPair]  # absent where there is no relativistic form
    relativistic: Relativistic = None
    detach_means: bool = False

    @abstractmethod
    def segments(self, side: Side, outputs: list[Tensor], scale: float) -> list[Segment]:
        """``scale`` times the loss of a side on the logits of every output."""

    @abstractmethod
    def summands(self, side: Side) -> Summands | None:
        """The loss of a side on the logits of one output, from which the op can build the segments
        itself. None where it depends on more than the logits, as with a label map."""


_TOWARDS_REAL = terms.softplus(-1.0)  # small where the logit is high
_TOWARDS_FAKE = terms.softplus(1.0)


@dataclass(frozen=True, eq=False)
class BCE(Loss):
    """Binary cross-entropy on logits (Goodfellow et al., 2014).

    .. math:: L_D = E[bce(r, t_r)] + E[bce(f, t_f)], \\qquad L_G = E[bce(f, t_g)]

    with ``bce(z, t) = t softplus(-z) + (1 - t) softplus(z)``. With labels 1, 0, 1 this is the
    logistic (non-saturating) loss. Relativistic (Jolicoeur-Martineau, 2018): softplus(-z).

    Args:
        real_label: target of real logits; a number, or a tensor that broadcasts to the logits: a
            map, one value for each sample, a 0-d tensor.
        fake_label: target of fake logits in the discriminator loss.
        generator_label: target of fake logits in the generator loss.
        saturating: the minimax generator loss, ``L_G = -E[bce(f, fake_label)]``.
        relativistic: None, ``"paired"`` or ``"average"``.
        detach_means: for ``"average"``: in the discriminator loss no gradient flows through the
            mean that a side is compared with, as in ESRGAN. (In the generator loss ``mean f``
            always carries its gradient, and ``mean r`` as far as ``real`` requires one.)
    """

    name: ClassVar[str] = "bce"
    relativistic_terms: ClassVar[TermPair] = TermPair(_TOWARDS_REAL, _TOWARDS_FAKE)
    real_label: Label = 1.0
    fake_label: Label = 0.0
    generator_label: Label = 1.0
    saturating: bool = False
    relativistic: Relativistic = None
    detach_means: bool = False

    def __post_init__(self) -> None:
        for name in ("real_label", "fake_label", "generator_label"):
            _check_label(self, name)
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

    def summands(self, side: Side) -> Summands | None:
        name, factor = self._label(side)
        label = getattr(self, name)
        if isinstance(label, Tensor):
            return None
        if label == 1.0:
            return ((_TOWARDS_REAL, factor),)
        if label == 0.0:
            return ((_TOWARDS_FAKE, factor),)
        return (_TOWARDS_REAL, factor * label), (_TOWARDS_FAKE, factor * (1.0 - label))

    def segments(self, side: Side, outputs: list[Tensor], scale: float) -> list[Segment]:
        summands = self.summands(side)
        if summands is not None:
            return _each(outputs, summands, scale)
        name, factor = self._label(side)
        label: Tensor = getattr(self, name)
        return [s for t in outputs for s in _soft_target_segments(name, label, t, scale * factor)]

    def _label(self, side: Side) -> tuple[str, float]:
        """The name of the target of a side's logits, and a factor of the loss."""
        if side == "generator" and self.saturating:
            return "fake_label", -1.0
        return f"{side}_label", 1.0


def _soft_target_segments(
    label_name: str, label: Tensor, logits: Tensor, scale: float
) -> list[Segment]:
    target = _label_map(label_name, label, logits).to(compute_dtype(logits.dtype))
    return [
        Segment(logits, _TOWARDS_REAL, scale, weight=target),
        Segment(logits, _TOWARDS_FAKE, scale, weight=1 - target),
    ]


@dataclass(frozen=True, eq=False)
class Hinge(Loss):
    """Hinge loss (Lim & Ye, 2017; Miyato et al., 2018).

    .. math:: L_D = E[max(0, m - r)] + E[max(0, m + f)], \\qquad L_G = -E[f]

    The slope at the kink is 0, as torch.relu's. Relativistic: max(0, 1 - z).

    Args:
        margin: ``m``.
        generator_form: ``"linear"``, or ``"hinge"`` for ``L_G = E[max(0, m - f)]``.
        relativistic: None, ``"paired"`` or ``"average"``.
        detach_means: for ``"average"``: in the discriminator loss no gradient flows through the
            mean that a side is compared with, as in ESRGAN. (In the generator loss ``mean f``
            always carries its gradient, and ``mean r`` as far as ``real`` requires one.)
    """

    name: ClassVar[str] = "hinge"
    relativistic_terms: ClassVar[TermPair] = TermPair(terms.hinge(1.0, 1.0), terms.hinge(-1.0, 1.0))
    margin: float = 1.0
    generator_form: Literal["linear", "hinge"] = "linear"
    relativistic: Relativistic = None
    detach_means: bool = False

    def __post_init__(self) -> None:
        check_number_field(self, "margin")
        check_choice("generator_form", self.generator_form, ("linear", "hinge"))
        _check_relativistic(self, {"margin": 1.0, "generator_form": "linear"})

    def summands(self, side: Side) -> Summands:
        if side == "generator" and self.generator_form == "linear":
            return ((terms.LINEAR, -1.0),)
        return ((terms.hinge(-1.0 if side == "fake" else 1.0, self.margin), 1.0),)

    def segments(self, side: Side, outputs: list[Tensor], scale: float) -> list[Segment]:
        return _each(outputs, self.summands(side), scale)


@dataclass(frozen=True, eq=False)
class LeastSquares(Loss):
    """Least-squares GAN loss (Mao et al., 2017).

    .. math:: L_D = E[(r - b)^2] + E[(f - a)^2], \\qquad L_G = E[(f - c)^2]

    The paper's factor 1/2 is not applied: multiply the result to get it. Relativistic:
    (z - 1)^2, so the targets are +1 and -1.

    Args:
        real_label: ``b``, the value the discriminator should give real samples; a number, or a
            tensor that broadcasts to the logits.
        fake_label: ``a``, the value it should give fake samples.
        generator_label: ``c``, the value the generator wants its samples to get.
        relativistic: None, ``"paired"`` or ``"average"``.
        detach_means: for ``"average"``: in the discriminator loss no gradient flows through the
            mean that a side is compared with, as in ESRGAN. (In the generator loss ``mean f``
            always carries its gradient, and ``mean r`` as far as ``real`` requires one.)
    """

    name: ClassVar[str] = "least_squares"
    relativistic_terms: ClassVar[TermPair] = TermPair(terms.squared(1.0), terms.squared(-1.0))
    real_label: Label = 1.0
    fake_label: Label = 0.0
    generator_label: Label = 1.0
    relativistic: Relativistic = None
    detach_means: bool = False

    def __post_init__(self) -> None:
        for name in ("real_label", "fake_label", "generator_label"):
            _check_label(self, name)
        _check_relativistic(self, {"real_label": 1.0, "fake_label": 0.0, "generator_label": 1.0})

    def summands(self, side: Side) -> Summands | None:
        label = getattr(self, f"{side}_label")
        return None if isinstance(label, Tensor) else ((terms.squared(label), 1.0),)

    def segments(self, side: Side, outputs: list[Tensor], scale: float) -> list[Segment]:
        summands = self.summands(side)
        if summands is not None:
            return _each(outputs, summands, scale)
        name = f"{side}_label"
        label: Tensor = getattr(self, name)
        return [_map_segment(name, label, logits, scale) for logits in outputs]


def _map_segment(label_name: str, label: Tensor, logits: Tensor, scale: float) -> Segment:
    label = _label_map(label_name, label, logits)
    # Labels are never rounded to half precision, and never make the loss float64.
    same = label.dtype == logits.dtype
    dtype = logits.dtype if same else compute_dtype(logits.dtype)
    return Segment(logits.to(dtype), terms.squared(0.0), scale, b=label.to(dtype))


@dataclass(frozen=True, eq=False)
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
        check_number_field(self, "drift")

    def summands(self, side: Side) -> Summands:
        if side == "fake":
            return ((terms.LINEAR, 1.0),)
        if side == "generator" or self.drift == 0.0:
            return ((terms.LINEAR, -1.0),)
        return (terms.LINEAR, -1.0), (terms.squared(0.0), self.drift)

    def segments(self, side: Side, outputs: list[Tensor], scale: float) -> list[Segment]:
        return _each(outputs, self.summands(side), scale)


LossLike = str | Loss
LOSSES: dict[str, Loss] = {
    "bce": BCE(),
    "hinge": Hinge(),
    "least_squares": LeastSquares(),
    "wasserstein": Wasserstein(),
}


# What the losses are called in papers and training codebases.
ALIASES = {
    "vanilla": "bce",
    "gan": "bce",
    "logistic": "bce",
    "nonsaturating": "bce",
    "non_saturating": "bce",
    "ns": "bce",
    "nsgan": "bce",
    "lsgan": "least_squares",
    "mse": "least_squares",
    "wgan": "wasserstein",
}
# Names that stand for more than one of ours, or for one with an option.
EXPLAINED = {
    "wgan_gp": 'it is the loss "wasserstein" and gradient_penalty(critic, real, fake) added to it',
    "wgan_div": 'it is the loss "wasserstein" and the penalty that gradient_penalty lists for it',
    "minimax": "it is BCE(saturating=True)",
    "saturating": "it is BCE(saturating=True)",
    "ragan": 'it is BCE(relativistic="average")',
    "rsgan": 'it is BCE(relativistic="paired")',
    "rpgan": 'it is BCE(relativistic="paired")',
    "relativistic": 'give a loss that option, for example BCE(relativistic="paired")',
    "lsgan_relativistic": 'it is LeastSquares(relativistic="average")',
    "ralsgan": 'it is LeastSquares(relativistic="average")',
    "rahinge": 'it is Hinge(relativistic="average")',
    "r1": 'it is a penalty, r1_penalty(critic, real), to be added to a loss such as "bce"',
}
EXPLAINED |= {name.replace("_", ""): text for name, text in EXPLAINED.items()}


def _loss_of_name(name: str) -> Loss:
    # People write "Non-Saturating", "least-squares", "LSGAN".
    plain = name.strip().lower().replace("-", "_").replace(" ", "_")[:64]
    plain = ALIASES.get(plain, plain)
    if plain in LOSSES:
        return LOSSES[plain]
    if plain in EXPLAINED:
        raise ValueError(f"loss: {quoted(name)} is no name here: {EXPLAINED[plain]}.")
    raise ValueError(
        f"loss: expected one of {', '.join(LOSSES)} (or {', '.join(ALIASES)}), got "
        f"{quoted(name)}.{suggestion(plain, [*LOSSES, *ALIASES])}"
    )


def resolve_loss(loss: LossLike) -> Loss:
    """The loss that a name stands for."""
    if isinstance(loss, str):
        return LOSSES[loss] if loss in LOSSES else _loss_of_name(loss)
    if not isinstance(loss, Loss):
        advice = ""
        if isinstance(loss, type) and issubclass(loss, Loss):
            advice = f" Create one: {loss.__name__}()."
        raise TypeError(
            f"loss: expected a name or a loss such as Hinge(), got {describe(loss)}.{advice}"
        )
    return loss
