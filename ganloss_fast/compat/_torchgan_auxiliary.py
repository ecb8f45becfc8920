"""torchgan's losses beside the adversarial ones, each with a training step of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from ganloss_fast.compat._torchgan_functional import (
    auxiliary_classification_loss,
    energy_based_pulling_away_term,
    mutual_information_penalty,
)
from ganloss_fast.compat._torchgan_steps import (
    DiscriminatorLoss,
    GeneratorLoss,
    Loss,
    Model,
    Samples,
    check_labels,
)

# ---- auxiliary classifiers ---------------------------------------------------------------------


def _check_classes(generator: Model) -> None:
    if generator.label_type == "none":
        raise ValueError("generator: an auxiliary classifier needs one with labels, got none.")


def _labels(generator: Model, batch_size: int, device: Any, labels: Tensor | None) -> Tensor:
    """What the generator is to draw."""
    if generator.label_type == "generated":
        return torch.randint(0, generator.num_classes, (batch_size,), device=device)
    assert labels is not None
    return labels


class AuxiliaryClassifierGeneratorLoss(GeneratorLoss):
    """Cross-entropy of the classes that the generator was to draw (Odena et al., 2017). The
    discriminator is asked with ``mode="classifier"``."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return auxiliary_classification_loss(logits, labels, self.reduction)

    def check_step(self, generator: Model, discriminator: Model, labels: Tensor | None) -> None:
        check_labels(labels, generator)
        _check_classes(generator)

    def step_loss(self, samples: Samples, discriminator: Model) -> Tensor:
        loss: Tensor = self(discriminator(samples.fake(), mode="classifier"), samples.labels)
        return loss


class AuxiliaryClassifierDiscriminatorLoss(DiscriminatorLoss):
    """Cross-entropy of the classes of real samples, and of those that the generator was to draw;
    as :class:`AuxiliaryClassifierGeneratorLoss`."""

    hands_itself_over = False

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return auxiliary_classification_loss(logits, labels, self.reduction)

    def check_step(self, generator: Model, discriminator: Model, labels: Tensor | None) -> None:
        if labels is None:
            raise ValueError("labels: the classifier learns from the labels of the data, got None.")
        _check_classes(generator)

    def step_losses(
        self,
        generator: Model,
        discriminator: Model,
        real_inputs: Tensor,
        device: Any,
        labels: Tensor | None,
    ) -> tuple[Tensor, ...]:
        batch_size = real_inputs.size(0)
        noise = torch.randn(batch_size, generator.encoding_dims, device=device)
        of_real = discriminator(real_inputs, mode="classifier")
        wanted = _labels(generator, batch_size, device, labels)
        with torch.no_grad():
            fake = generator(noise, wanted)
        of_fake = discriminator(fake, mode="classifier")
        return (self(of_fake, wanted) + self(of_real, labels),)


# ---- features, embeddings, codes ---------------------------------------------------------------


class FeatureMatchingGeneratorLoss(GeneratorLoss):
    """``(f(x) - f(G(z)))^2`` of a layer of the discriminator (Salimans et al., 2016), which is
    asked with ``feature_matching=True``."""

    def forward(self, fx: Tensor, fgz: Tensor) -> Tensor:
        return mse_loss(fgz, fx, reduction=self.reduction)

    def train_ops(  # type: ignore[override]  # torchgan's takes samples in place of their number
        self,
        generator: Model,
        discriminator: Model,
        optimizer_generator: torch.optim.Optimizer,
        real_inputs: Tensor,
        device: Any,
        labels: Tensor | None = None,
    ) -> Any:
        if self.override_train_ops is not None:
            return self.override_train_ops(
                generator, discriminator, optimizer_generator, device, labels
            )
        self.check_step(generator, discriminator, labels)

        def loss_of_step() -> Tensor:
            samples = Samples(generator, real_inputs.size(0), device, labels)
            fake = samples.fake()
            fx = samples.judged_real(discriminator, real_inputs, feature_matching=True)
            loss: Tensor = self(fx, samples.judged(discriminator, fake, feature_matching=True))
            return loss

        return self.step(generator, discriminator, optimizer_generator, loss_of_step)


class EnergyBasedPullingAwayTerm(GeneratorLoss):
    """``pt_ratio`` times :func:`energy_based_pulling_away_term` of the embeddings, which an
    auto-encoding discriminator returns first."""

    def __init__(self, pt_ratio: float = 0.1, override_train_ops: Any = None) -> None:
        super().__init__("mean", override_train_ops)
        self.pt_ratio = pt_ratio

    def forward(self, dgz: Tensor, d_hid: Tensor) -> Tensor:
        return self.pt_ratio * energy_based_pulling_away_term(d_hid)

    def check_step(self, generator: Model, discriminator: Model, labels: Tensor | None) -> None:
        if not getattr(discriminator, "embeddings", False):
            raise ValueError(
                "discriminator: expected one that auto-encodes, with embeddings=True, to pull its "
                "embeddings away from each other."
            )
        if generator.label_type != "none":
            raise ValueError(
                f"generator: expected one without labels, got label_type={generator.label_type!r}."
            )

    def step_loss(self, samples: Samples, discriminator: Model) -> Tensor:
        d_hid, dgz = discriminator(samples.fake())
        loss: Tensor = self(dgz, d_hid)
        return loss


class MutualInformationPenalty(GeneratorLoss, DiscriminatorLoss):
    """``lambd`` times :func:`mutual_information_penalty` (InfoGAN; Chen et al., 2016), for both
    networks. It has a gradient, which torchgan's loses."""

    def __init__(
        self, lambd: float = 1.0, reduction: str = "mean", override_train_ops: Any = None
    ) -> None:
        super().__init__(reduction, override_train_ops)
        self.lambd = lambd

    def forward(self, c_dis: Tensor, c_cont: Tensor, dist_dis: Any, dist_cont: Any) -> Tensor:
        return mutual_information_penalty(c_dis, c_cont, dist_dis, dist_cont, self.reduction)

    def train_ops(  # type: ignore[override]  # torchgan's takes the codes
        self,
        generator: Model,
        discriminator: Model,
        optimizer_generator: torch.optim.Optimizer,
        optimizer_discriminator: torch.optim.Optimizer,
        dis_code: Tensor,
        cont_code: Tensor,
        device: Any,
        batch_size: int,
    ) -> Any:
        """One step of both; returns the weighted penalty as a number. The discriminator returns
        (logits, distribution of the discrete code, that of the continuous one) for
        ``discriminator(samples, True)``."""
        if self.override_train_ops is not None:
            return self.override_train_ops(
                generator,
                discriminator,
                optimizer_generator,
                optimizer_discriminator,
                dis_code,
                cont_code,
                device,
                batch_size,
            )
        noise = torch.randn(batch_size, generator.encoding_dims, device=device)
        optimizer_discriminator.zero_grad()
        optimizer_generator.zero_grad()
        fake = generator(noise, dis_code, cont_code)
        _, dist_dis, dist_cont = discriminator(fake, True)
        loss = self.lambd * self(dis_code, cont_code, dist_dis, dist_cont)
        loss.backward()
        optimizer_discriminator.step()
        optimizer_generator.step()
        return loss.item()


# ---- historical averages -----------------------------------------------------------------------


class _HistoricalAverage(Loss):
    """``lambd sum (p - mean of p so far)^2`` of the parameters of a network."""

    def __init__(
        self,
        reduction: str = "elementwise_mean",
        override_train_ops: Any = None,
        lambd: float = 1.0,
    ) -> None:
        super().__init__(reduction, override_train_ops)
        self.timesteps = 0
        self.sum_parameters: list[Tensor] = []
        self.lambd = lambd

    def average_step(self, network: Model, optimizer: torch.optim.Optimizer) -> Any:
        if self.override_train_ops is not None:
            return self.override_train_ops(self, network, optimizer)
        parameters = list(network.parameters())
        if self.timesteps == 0:
            self.sum_parameters.extend(p.detach().clone() for p in parameters)
            self.timesteps = 1
            return 0.0
        optimizer.zero_grad()
        distances = [
            (p - past / self.timesteps).square().sum()
            for p, past in zip(parameters, self.sum_parameters)
        ]
        loss = torch.stack(distances).sum() * self.lambd
        for p, past in zip(parameters, self.sum_parameters):
            past += p.detach()
        self.timesteps += 1
        loss.backward()
        optimizer.step()
        return loss.item()


class HistoricalAverageGeneratorLoss(_HistoricalAverage, GeneratorLoss):
    """``lambd`` times the squared distance of the parameters from their mean over all steps so far
    (Salimans et al., 2016). The first call only remembers them, and returns 0."""

    def train_ops(  # type: ignore[override]  # torchgan's takes nothing else
        self, generator: Model, optimizer_generator: torch.optim.Optimizer
    ) -> Any:
        return self.average_step(generator, optimizer_generator)


class HistoricalAverageDiscriminatorLoss(_HistoricalAverage, DiscriminatorLoss):
    """:class:`HistoricalAverageGeneratorLoss` of the discriminator."""

    def train_ops(  # type: ignore[override]  # torchgan's takes nothing else
        self, discriminator: Model, optimizer_discriminator: torch.optim.Optimizer
    ) -> Any:
        return self.average_step(discriminator, optimizer_discriminator)
