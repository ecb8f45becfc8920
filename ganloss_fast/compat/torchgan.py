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

from ganloss_fast.compat._torchgan_auxiliary import (
    AuxiliaryClassifierDiscriminatorLoss,
    AuxiliaryClassifierGeneratorLoss,
    EnergyBasedPullingAwayTerm,
    FeatureMatchingGeneratorLoss,
    HistoricalAverageDiscriminatorLoss,
    HistoricalAverageGeneratorLoss,
    MutualInformationPenalty,
)
from ganloss_fast.compat._torchgan_functional import (
    auxiliary_classification_loss,
    boundary_equilibrium_discriminator_loss,
    boundary_equilibrium_generator_loss,
    dragan_gradient_penalty,
    energy_based_discriminator_loss,
    energy_based_generator_loss,
    energy_based_pulling_away_term,
    least_squares_discriminator_loss,
    least_squares_generator_loss,
    minimax_discriminator_loss,
    minimax_generator_loss,
    mutual_information_penalty,
    wasserstein_discriminator_loss,
    wasserstein_generator_loss,
    wasserstein_gradient_penalty,
)
from ganloss_fast.compat._torchgan_steps import DiscriminatorLoss, GeneratorLoss, PenaltyLoss

__all__ = [
    "AuxiliaryClassifierDiscriminatorLoss",
    "AuxiliaryClassifierGeneratorLoss",
    "BoundaryEquilibriumDiscriminatorLoss",
    "BoundaryEquilibriumGeneratorLoss",
    "DiscriminatorLoss",
    "DraganGradientPenalty",
    "EnergyBasedDiscriminatorLoss",
    "EnergyBasedGeneratorLoss",
    "EnergyBasedPullingAwayTerm",
    "FeatureMatchingGeneratorLoss",
    "GeneratorLoss",
    "HistoricalAverageDiscriminatorLoss",
    "HistoricalAverageGeneratorLoss",
    "LeastSquaresDiscriminatorLoss",
    "LeastSquaresGeneratorLoss",
    "MinimaxDiscriminatorLoss",
    "MinimaxGeneratorLoss",
    "MutualInformationPenalty",
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
