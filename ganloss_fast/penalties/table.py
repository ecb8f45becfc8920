"""The table of gradient penalties: what is asked of the norm of a critic's gradient.

A penalty is a value, as a loss is: ``R1(gamma=1.0)``, or a name of :data:`PENALTIES`, ``"r1"``. It
holds constants, checked when it is made. What changes from step to step (a weight schedule, masks,
the critic's further arguments) goes into the call, and so does *where* the gradient is taken: a
value only says where its paper takes it.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import ClassVar, Literal, NamedTuple

from torch import Tensor

from ganloss_fast.checks import (
    Value,
    Weight,
    check_choice,
    check_flag,
    check_number_field,
    check_weight,
    describe,
    quoted,
    suggestion,
)
from ganloss_fast.penalties.points import AlphaKind, AroundReal, Where

Norm = Literal["sample", "channel", "batch"]
EpsAt = Literal["root", "gradient"]
PenaltyReduction = Literal["mean", "sum", "max", "none"]


@dataclass(frozen=True, eq=False)
class NormPenalty(Value):
    """A penalty on the norm of a gradient: the general form, of which the others are cases.

    .. math:: weight \\cdot E_i[|\\|g_i\\| - target|^{power}]

    Args:
        weight: factor of the penalty; a number or a 0-d tensor.
        target: the norm that is asked for.
        one_sided: penalise only norms above ``target``.
        power: exponent of the distance to ``target``.
        norm: over a ``"sample"``, over the ``"channel"`` axis for each pixel, or over the whole
            ``"batch"``.
        eps: added inside the root (``eps_at="root"``) or to every component of the gradient
            (``eps_at="gradient"``). With 0, the norm's gradient at 0 is 0.
        normalize_by_mask: divide the penalty by the mean of the mask, which the call then needs.
        reduction: of the per-norm penalties: ``"mean"``, ``"sum"``, ``"max"``, or ``"none"`` for
            [B] (the pixels' map for ``norm="channel"``).

    Raises:
        ValueError, TypeError: when it is made, if an option is not one of these.
    """

    at: ClassVar[Where | None] = None  # where its paper takes it; None: the call has to say

    weight: Weight = 1.0
    _: KW_ONLY
    target: float = 0.0
    one_sided: bool = False
    power: float = 2.0
    norm: Norm = "sample"
    eps: float = 0.0
    eps_at: EpsAt = "root"
    normalize_by_mask: bool = False
    reduction: PenaltyReduction = "mean"

    def __post_init__(self) -> None:
        if not isinstance(self.weight, Tensor):
            check_number_field(self, "weight")
        check_weight("weight", self.weight)
        check_number_field(self, "target")
        check_flag("one_sided", self.one_sided)
        check_flag("normalize_by_mask", self.normalize_by_mask)
        check_choice("norm", self.norm, ("sample", "channel", "batch"))
        check_choice("eps_at", self.eps_at, ("root", "gradient"))
        check_choice("reduction", self.reduction, ("mean", "sum", "max", "none"))
        if check_number_field(self, "eps") < 0:
            raise ValueError(f"eps: expected a number >= 0, got {self.eps}.")
        if check_number_field(self, "power") <= 0:
            raise ValueError(f"power: expected a number > 0, got {self.power}.")


@dataclass(frozen=True, eq=False)
class WGANGP(NormPenalty):
    """The penalty of WGAN-GP (Gulrajani et al., 2017), between real and fake samples.

    .. math:: weight \\cdot E_i[(\\|g_i\\|_2 - target)^2]

    ``one_sided=True`` is WGAN-LP (Petzka et al., 2018); ``weight=10 / target**2`` is progressive
    GAN's form of another target. The other options are those of :class:`NormPenalty`.
    """

    at: ClassVar[Where | None] = "mixed"

    weight: Weight = 10.0
    _: KW_ONLY
    target: float = 1.0


@dataclass(frozen=True, eq=False)
class Dragan(WGANGP):
    """The penalty of DRAGAN (Kodali et al., 2017): that of WGAN-GP around real samples.

    The noise around them is a matter of the call: ``at=AroundReal(...)``.
    """

    at: ClassVar[Where | None] = AroundReal()


@dataclass(frozen=True, eq=False)
class R1(NormPenalty):
    """R1: the squared gradient norm at real samples (Mescheder et al., 2018).

    .. math:: \\frac{\\gamma}{2} E_i \\|g_i\\|_2^2

    Args:
        gamma: a number or a 0-d tensor. The paper's is 10, and so is StyleGAN2's at 1024 pixels.

    ``norm``, ``normalize_by_mask`` and ``reduction`` are those of :class:`NormPenalty`.
    """

    at: ClassVar[Where | None] = "real"

    gamma: Weight = 10.0
    weight: Weight = field(default=5.0, init=False, repr=False, compare=False)
    _: KW_ONLY
    target: float = field(default=0.0, init=False, repr=False)
    one_sided: bool = field(default=False, init=False, repr=False)
    power: float = field(default=2.0, init=False, repr=False)
    eps: float = field(default=0.0, init=False, repr=False)
    eps_at: EpsAt = field(default="root", init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.gamma, Tensor):
            check_number_field(self, "gamma")
        object.__setattr__(self, "weight", check_weight("gamma", self.gamma) / 2)
        super().__post_init__()


@dataclass(frozen=True, eq=False)
class R2(R1):
    """R2: :class:`R1` at generated samples (Mescheder et al., 2018)."""

    at: ClassVar[Where | None] = "fake"


class Published(NamedTuple):
    """A row of the table: a penalty, where it is taken, and who published it."""

    penalty: NormPenalty
    source: str
    at: Where | None = None  # None: the penalty's own
    alpha: AlphaKind | float | None = None  # how the share of real is drawn; None: one a sample

    @property
    def where(self) -> Where | None:
        return self.penalty.at if self.at is None else self.at


# Weights are those of the paper or of the code that is named. Code that multiplies by its own
# lambda outside has weight 1 here.
PENALTIES: dict[str, Published] = {
    "wgan-gp": Published(WGANGP(), "Gulrajani et al., 2017; PyTorch-GAN, StudioGAN, StarGAN"),
    "wgan-lp": Published(WGANGP(one_sided=True), "Petzka et al., 2018"),
    "0-gp": Published(WGANGP(target=0.0), "Thanh-Tung et al., 2019"),
    "dragan": Published(Dragan(), "Kodali et al., 2017; StudioGAN"),
    "r1": Published(R1(), "Mescheder et al., 2018; StyleGAN2 at 1024 pixels"),
    "r2": Published(R2(), "Mescheder et al., 2018; R3GAN takes it beside R1"),
    "max-gp": Published(
        NormPenalty(10.0, target=0.0, reduction="max"), "Zhou et al., 2019; StudioGAN", "mixed"
    ),
    "wgan-div": Published(
        NormPenalty(1.0, power=6.0),
        "Wu et al., 2018, k = 2 and p = 6: once at real and once at fake samples, each k / 2",
        "real",
    ),
    # What code does under these names, where its numbers differ.
    "cyclegan": Published(
        WGANGP(eps=1e-16, eps_at="gradient"), "CycleGAN and pix2pix, CUT: cal_gradient_penalty"
    ),
    "mmagic": Published(
        WGANGP(1.0, norm="channel"), "mmagic and BasicSR: gradient_penalty_loss, per pixel"
    ),
    "mmagic-r1": Published(
        NormPenalty(1.0, norm="channel"), "mmagic: r1_gradient_penalty_loss, per pixel", "real"
    ),
    "singan": Published(WGANGP(0.1, norm="channel"), "SinGAN", alpha="batch"),
    "torchgan": Published(
        WGANGP(norm="batch"), "torchgan: WassersteinGradientPenalty", alpha="batch"
    ),
    "pytorch-gan-dragan": Published(Dragan(norm="channel"), "PyTorch-GAN: dragan", alpha="element"),
    "torchgan-dragan": Published(
        Dragan(norm="batch"), "torchgan: DraganGradientPenalty", alpha="element"
    ),
    "tf-gan": Published(WGANGP(1.0, eps=1e-10), "TF-GAN: wasserstein_gradient_penalty"),
    "compare-gan": Published(WGANGP(1.0, eps=1e-4), "compare_gan: wgangp_penalty"),
    "compare-gan-dragan": Published(
        Dragan(1.0, eps=1e-4),
        "compare_gan: dragan_penalty",
        AroundReal(1.0, "population", "centered", (0.0, 1.0)),
        alpha=0.0,
    ),
    "zoo": Published(WGANGP(reduction="sum"), "GAN zoo: the sum over the batch"),
    "gigagan": Published(NormPenalty(10.0), "gigagan-pytorch: gradient_penalty", "real"),
    "diffusers": Published(WGANGP(), "diffusers' VQGAN: gradient_penalty", "real"),
    "stargan-v2": Published(R1(gamma=1.0), "StarGAN v2: r1_reg"),
    "lama": Published(R1(gamma=0.002), "LaMa: make_r1_gp with gp_coef 0.001"),
}

PenaltyName = Literal[
    "wgan-gp",
    "wgan-lp",
    "0-gp",
    "dragan",
    "r1",
    "r2",
    "max-gp",
    "wgan-div",
    "cyclegan",
    "mmagic",
    "mmagic-r1",
    "singan",
    "torchgan",
    "pytorch-gan-dragan",
    "torchgan-dragan",
    "tf-gan",
    "compare-gan",
    "compare-gan-dragan",
    "zoo",
    "gigagan",
    "diffusers",
    "stargan-v2",
    "lama",
]
PenaltyLike = NormPenalty | PenaltyName


def resolve_penalty(penalty: PenaltyLike) -> Published:
    """The row that a name stands for, or that of a value."""
    if isinstance(penalty, NormPenalty):
        return Published(penalty, "")
    if isinstance(penalty, str):
        if penalty in PENALTIES:
            return PENALTIES[penalty]
        raise ValueError(
            f"penalty: there is none with the name {quoted(penalty)}; expected one of "
            f"{', '.join(PENALTIES)}, or a value such as WGANGP(one_sided=True)."
            f"{suggestion(penalty, list(PENALTIES))}"
        )
    advice = ""
    if isinstance(penalty, type) and issubclass(penalty, NormPenalty):
        advice = f" Create one: {penalty.__name__}()."
    raise TypeError(
        f"penalty: expected a name or a penalty such as R1(), got {describe(penalty)}.{advice}"
    )
