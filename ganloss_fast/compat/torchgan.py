"""Drop-in for ``torchgan.losses``: its functions and its losses with ``train_ops``.

``from torchgan.losses import WassersteinGradientPenalty`` becomes
``from ganloss_fast.compat.torchgan import WassersteinGradientPenalty``. Names, arguments, order,
defaults and values are torchgan's. What differs, on purpose:

* An unknown ``reduction`` is refused, where torchgan returns the elements.
* :func:`mutual_information_penalty` has a gradient; torchgan's loses it.
* A penalty's ``train_ops`` runs the generator without a graph, and a generator's does not compute
  the discriminator's weight gradients: torchgan clears both, unread, with its next ``zero_grad``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ganloss_fast.checks import check_choice, check_tensor
from ganloss_fast.compat import _toolkits
from ganloss_fast.compat._torchgan_steps import DiscriminatorLoss, GeneratorLoss, PenaltyLoss
from ganloss_fast.losses.table import BCE, LeastSquares, Wasserstein
from ganloss_fast.ops import terms
from ganloss_fast.ops.terms import Segment
from ganloss_fast.penalties.gradient_penalty import penalty_from_logits
from ganloss_fast.penalties.table import NormPenalty

__all__ = [
    "BoundaryEquilibriumDiscriminatorLoss",
    "BoundaryEquilibriumGeneratorLoss",
    "DiscriminatorLoss",
    "DraganGradientPenalty",
    "EnergyBasedDiscriminatorLoss",
    "EnergyBasedGeneratorLoss",
    "GeneratorLoss",
    "LeastSquaresDiscriminatorLoss",
    "LeastSquaresGeneratorLoss",
    "MinimaxDiscriminatorLoss",
    "MinimaxGeneratorLoss",
    "WassersteinDiscriminatorLoss",
    "WassersteinGeneratorLoss",
    "WassersteinGradientPenalty",
    "auxiliary_classification_loss",
    "boundary_equilibrium_discriminator_loss",
    "boundary_equilibrium_generator_loss",
    "dragan_gradient_penalty",
    "energy_based_discriminator_loss",
    "energy_based_generator_loss",
    "energy_based_pulling_away_term",
    "least_squares_discriminator_loss",
    "least_squares_generator_loss",
    "minimax_discriminator_loss",
    "minimax_generator_loss",
    "mutual_information_penalty",
    "wasserstein_discriminator_loss",
    "wasserstein_generator_loss",
    "wasserstein_gradient_penalty",
]

# ---- functions ---------------------------------------------------------------------------------


def minimax_generator_loss(
    dgz: Tensor, nonsaturating: bool = True, reduction: str = "mean"
) -> Tensor:
    """``bce(dgz, 1)``, or ``-bce(dgz, 0)`` for the saturating form."""
    loss = BCE(saturating=not nonsaturating)
    fake = [check_tensor("dgz", dgz)]
    return _toolkits.reduced_sides(reduction, fake=loss.generator_segments(fake, 1.0))


def minimax_discriminator_loss(
    dx: Tensor, dgz: Tensor, label_smoothing: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """``bce(dx, 1 - label_smoothing) + bce(dgz, 0)``."""
    real, fake = _toolkits.check_pair(("dx", "dgz"), dx, dgz)
    loss = BCE(real_label=1.0 - label_smoothing)
    return _toolkits.reduced_sides(
        reduction, real=loss.real_segments([real], 1.0), fake=loss.fake_segments([fake], 1.0)
    )


def least_squares_generator_loss(dgz: Tensor, c: float = 1.0, reduction: str = "mean") -> Tensor:
    """``(dgz - c)^2 / 2``."""
    loss = LeastSquares(generator_label=c)
    fake = [check_tensor("dgz", dgz)]
    return _toolkits.reduced_sides(reduction, fake=loss.generator_segments(fake, 0.5))


def least_squares_discriminator_loss(
    dx: Tensor, dgz: Tensor, a: float = 0.0, b: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """``((dx - b)^2 + (dgz - a)^2) / 2``."""
    real, fake = _toolkits.check_pair(("dx", "dgz"), dx, dgz)
    loss = LeastSquares(real_label=b, fake_label=a)
    return _toolkits.reduced_sides(
        reduction, real=loss.real_segments([real], 0.5), fake=loss.fake_segments([fake], 0.5)
    )


def wasserstein_generator_loss(fgz: Tensor, reduction: str = "mean") -> Tensor:
    """``-fgz``."""
    segments = Wasserstein().generator_segments([check_tensor("fgz", fgz)], 1.0)
    return _toolkits.reduced_sides(reduction, fake=segments)


def wasserstein_discriminator_loss(fx: Tensor, fgz: Tensor, reduction: str = "mean") -> Tensor:
    """``fgz - fx``."""
    real, fake = _toolkits.check_pair(("fx", "fgz"), fx, fgz)
    loss = Wasserstein()
    return _toolkits.reduced_sides(
        reduction, real=loss.real_segments([real], 1.0), fake=loss.fake_segments([fake], 1.0)
    )


def energy_based_generator_loss(dgz: Tensor, reduction: str = "mean") -> Tensor:
    """``dgz``, the energy of generated samples."""
    return _toolkits.reduced_sides(
        reduction, fake=[Segment(check_tensor("dgz", dgz), terms.LINEAR)]
    )


def energy_based_discriminator_loss(
    dx: Tensor, dgz: Tensor, margin: float, reduction: str = "mean"
) -> Tensor:
    """``dx + max(0, margin - dgz)``."""
    real, fake = _toolkits.check_pair(("dx", "dgz"), dx, dgz)
    return _toolkits.reduced_sides(
        reduction,
        real=[Segment(real, terms.LINEAR)],
        fake=[Segment(fake, terms.hinge(1.0, margin))],
    )


def energy_based_pulling_away_term(d_hid: Tensor) -> Tensor:
    """``sum(S^2) / (n (n - 1))`` with cosines ``S``; normalised along the batch, as torchgan's."""
    n = d_hid.shape[0]
    return _toolkits.pulling_away(d_hid, axis=0).square().sum() / (n * (n - 1))


def boundary_equilibrium_generator_loss(dgz: Tensor, reduction: str = "mean") -> Tensor:
    """``dgz``, the reconstruction error of generated samples."""
    return energy_based_generator_loss(dgz, reduction)


def boundary_equilibrium_discriminator_loss(
    dx: Tensor, dgz: Tensor, k: float | Tensor, reduction: str = "mean"
) -> tuple[Tensor, Tensor, Tensor]:
    """(``dx - k dgz``, ``dx``, ``dgz``), each reduced."""
    if reduction == "mean":
        real, fake = _toolkits.check_pair(("dx", "dgz"), dx, dgz)
        real, fake = _toolkits.pair_of_values(
            [Segment(real, terms.LINEAR)], [Segment(fake, terms.LINEAR)]
        )
    else:
        real = energy_based_generator_loss(dx, reduction)
        fake = energy_based_generator_loss(dgz, reduction)
    return real - k * fake, real, fake


def wasserstein_gradient_penalty(
    interpolate: Tensor, d_interpolate: Tensor, reduction: str = "mean"
) -> Tensor:
    """``(|g| - 1)^2`` with one norm for the whole batch; lambda is yours, outside."""
    return dragan_gradient_penalty(interpolate, d_interpolate, 1.0, reduction)


def dragan_gradient_penalty(
    interpolate: Tensor, d_interpolate: Tensor, k: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """``(|g| - k)^2`` with one norm for the whole batch, a scalar whatever the reduction."""
    check_choice("reduction", reduction, _toolkits.REDUCTIONS)
    penalty = NormPenalty(1.0, target=k, norm="batch")
    return penalty_from_logits(d_interpolate, interpolate, penalty)


def mutual_information_penalty(
    c_dis: Tensor, c_cont: Tensor, dist_dis: Any, dist_cont: Any, reduction: str = "mean"
) -> Tensor:
    """Minus the mean log-likelihood of the codes, of both distributions."""
    pairs = ((dist_dis, c_dis), (dist_cont, c_cont))
    likelihoods = torch.stack([dist.log_prob(code).mean() for dist, code in pairs])
    return energy_based_generator_loss(-likelihoods, reduction)


def auxiliary_classification_loss(
    logits: Tensor, labels: Tensor, reduction: str = "mean"
) -> Tensor:
    """Cross-entropy of classes; plain PyTorch."""
    return torch.nn.functional.cross_entropy(logits, labels, reduction=reduction)


# ---- losses with a training step ---------------------------------------------------------------


class MinimaxGeneratorLoss(GeneratorLoss):
    """:func:`minimax_generator_loss`."""

    def __init__(
        self, reduction: str = "mean", nonsaturating: bool = True, override_train_ops: Any = None
    ) -> None:
        super().__init__(reduction, override_train_ops)
        self.nonsaturating = nonsaturating

    def forward(self, dgz: Tensor) -> Tensor:
        return minimax_generator_loss(dgz, self.nonsaturating, self.reduction)


class MinimaxDiscriminatorLoss(DiscriminatorLoss):
    """:func:`minimax_discriminator_loss`. The smoothing comes first."""

    def __init__(
        self,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
        override_train_ops: Any = None,
    ) -> None:
        super().__init__(reduction, override_train_ops)
        self.label_smoothing = label_smoothing

    def forward(self, dx: Tensor, dgz: Tensor) -> Tensor:
        return minimax_discriminator_loss(dx, dgz, self.label_smoothing, self.reduction)


class LeastSquaresGeneratorLoss(GeneratorLoss):
    """:func:`least_squares_generator_loss`."""

    def __init__(
        self, reduction: str = "mean", c: float = 1.0, override_train_ops: Any = None
    ) -> None:
        super().__init__(reduction, override_train_ops)
        self.c = c

    def forward(self, dgz: Tensor) -> Tensor:
        return least_squares_generator_loss(dgz, self.c, self.reduction)


class LeastSquaresDiscriminatorLoss(DiscriminatorLoss):
    """:func:`least_squares_discriminator_loss`."""

    def __init__(
        self,
        reduction: str = "mean",
        a: float = 0.0,
        b: float = 1.0,
        override_train_ops: Any = None,
    ) -> None:
        super().__init__(reduction, override_train_ops)
        self.a, self.b = a, b

    def forward(self, dx: Tensor, dgz: Tensor) -> Tensor:
        return least_squares_discriminator_loss(dx, dgz, self.a, self.b, self.reduction)


class WassersteinGeneratorLoss(GeneratorLoss):
    """:func:`wasserstein_generator_loss`."""

    def forward(self, fgz: Tensor) -> Tensor:
        return wasserstein_generator_loss(fgz, self.reduction)


class WassersteinDiscriminatorLoss(DiscriminatorLoss):
    """:func:`wasserstein_discriminator_loss`; ``clip``, a pair, clamps the weights ahead of every
    step."""

    hands_itself_over = False

    def __init__(
        self,
        reduction: str = "mean",
        clip: Sequence[float] | None = None,
        override_train_ops: Any = None,
    ) -> None:
        super().__init__(reduction, override_train_ops)
        self.clip = clip if isinstance(clip, (list, tuple)) and len(clip) > 1 else None

    def forward(self, fx: Tensor, fgz: Tensor) -> Tensor:
        return wasserstein_discriminator_loss(fx, fgz, self.reduction)


class EnergyBasedGeneratorLoss(GeneratorLoss):
    """:func:`energy_based_generator_loss`."""

    without_embeddings = True

    def forward(self, dgz: Tensor) -> Tensor:
        return energy_based_generator_loss(dgz, self.reduction)


class EnergyBasedDiscriminatorLoss(DiscriminatorLoss):
    """:func:`energy_based_discriminator_loss`."""

    without_embeddings = True

    def __init__(
        self, reduction: str = "mean", margin: float = 80.0, override_train_ops: Any = None
    ) -> None:
        super().__init__(reduction, override_train_ops)
        self.margin = margin

    def forward(self, dx: Tensor, dgz: Tensor) -> Tensor:
        return energy_based_discriminator_loss(dx, dgz, self.margin, self.reduction)

    def train_ops(  # type: ignore[override]  # torchgan's has one more argument here
        self,
        generator: Any,
        discriminator: Any,
        optimizer_discriminator: torch.optim.Optimizer,
        real_inputs: Tensor,
        device: Any,
        batch_size: int,
        labels: Tensor | None = None,
    ) -> Any:
        """Of :class:`DiscriminatorLoss`; ``batch_size`` is not used."""
        return super().train_ops(
            generator, discriminator, optimizer_discriminator, real_inputs, device, labels
        )


class BoundaryEquilibriumGeneratorLoss(GeneratorLoss):
    """:func:`boundary_equilibrium_generator_loss`."""

    def forward(self, dgz: Tensor) -> Tensor:
        return boundary_equilibrium_generator_loss(dgz, self.reduction)


class BoundaryEquilibriumDiscriminatorLoss(DiscriminatorLoss):
    """:func:`boundary_equilibrium_discriminator_loss` with its balance ``k``.

    ``train_ops`` takes the three values to the host in one transfer, where torchgan takes three.
    A balance that never leaves the device: :class:`ganloss_fast.BoundaryEquilibrium`.
    """

    def __init__(
        self,
        reduction: str = "mean",
        override_train_ops: Any = None,
        init_k: float = 0.0,
        lambd: float = 0.001,
        gamma: float = 0.75,
    ) -> None:
        super().__init__(reduction, override_train_ops)
        self.k = init_k
        self.lambd = lambd
        self.gamma = gamma
        self.convergence_metric: float | None = None

    def forward(self, dx: Tensor, dgz: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return boundary_equilibrium_discriminator_loss(dx, dgz, self.k, self.reduction)

    def set_k(self, k: float = 0.0) -> None:
        """Another balance."""
        self.k = k

    def update_k(self, loss_real: float, loss_fake: float) -> None:
        """``k + lambd (gamma loss_real - loss_fake)``, within [0, 1]."""
        difference = self.gamma * loss_real - loss_fake
        self.convergence_metric = loss_real + abs(difference)
        self.k = max(min(self.k + self.lambd * difference, 1.0), 0.0)

    def after_step(self, losses: tuple[Tensor, ...]) -> float:
        total, real, fake = torch.stack(losses).tolist()
        self.update_k(real, fake)
        return float(total)


class WassersteinGradientPenalty(PenaltyLoss):
    """:func:`wasserstein_gradient_penalty` between real and generated samples, with a step of its
    own; one share of real for the whole batch."""

    def __init__(
        self, reduction: str = "mean", lambd: float = 10.0, override_train_ops: Any = None
    ) -> None:
        super().__init__(reduction, override_train_ops)
        self.lambd = lambd

    def forward(self, interpolate: Tensor, d_interpolate: Tensor) -> Tensor:
        return wasserstein_gradient_penalty(interpolate, d_interpolate, self.reduction)


class DraganGradientPenalty(PenaltyLoss):
    """:func:`dragan_gradient_penalty` around real samples, with a step of its own."""

    around_real = True

    def __init__(
        self,
        reduction: str = "mean",
        lambd: float = 10.0,
        k: float = 1.0,
        override_train_ops: Any = None,
    ) -> None:
        super().__init__(reduction, override_train_ops)
        self.lambd = lambd
        self.k = k

    def forward(self, interpolate: Tensor, d_interpolate: Tensor) -> Tensor:
        return dragan_gradient_penalty(interpolate, d_interpolate, self.k, self.reduction)
