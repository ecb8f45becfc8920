"""R3GAN (brownvc/R3GAN): ``R3GAN/Trainer.py`` and ``training/loss.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ganloss_fast.checks import Weight
from ganloss_fast.compat._criteria import check_mode
from ganloss_fast.compat._stylegan import Report, Reports
from ganloss_fast.losses.adversarial import generator_loss
from ganloss_fast.losses.table import BCE
from ganloss_fast.penalties.gradient_penalty import penalty_from_logits
from ganloss_fast.penalties.shared_backward import logits_and_penalty
from ganloss_fast.penalties.table import NormPenalty

_PAIRED = BCE(relativistic="paired")
_EACH = NormPenalty(reduction="none")

Preprocessor = Callable[[Tensor], Tensor]


def _unchanged(images: Tensor) -> Tensor:
    return images


def _above(logits: Tensor, others: Tensor, weight: Weight) -> Tensor:
    """``weight E[softplus(-(logits - others))]``: what wants the first above the second. Either
    player's loss is this, of swapped arguments."""
    return generator_loss(logits, _PAIRED, real=others, weight=weight)


def _elements(logits: Tensor, others: Tensor) -> list[Tensor]:
    """The loss and the relativistic logit of every pair, detached."""
    logits, others = logits.detach(), others.detach()
    loss: Any = generator_loss(logits, _PAIRED, real=others, reduction="none")
    return [loss, logits - others]


class AdversarialTraining:
    """The training of R3GAN (Huang et al., 2024): relativistic pairs with R1 and R2.

    Args:
        Generator: ``(noise, conditions) -> samples``.
        Discriminator: ``(samples, conditions) -> logits`` [B].
    """

    def __init__(
        self, Generator: Callable[..., Tensor], Discriminator: Callable[..., Tensor]
    ) -> None:
        self.Generator = Generator
        self.Discriminator = Discriminator

    @staticmethod
    def ZeroCenteredGradientPenalty(Samples: Tensor, Critics: Tensor) -> Tensor:
        """[B]: ``sum g_i^2`` of every sample, of logits that were computed from ``Samples``."""
        return penalty_from_logits(Critics, Samples, _EACH)

    def AccumulateGeneratorGradients(
        self,
        Noise: Tensor,
        RealSamples: Tensor,
        Conditions: Any,
        Scale: float = 1,
        Preprocessor: Preprocessor = _unchanged,
    ) -> list[Tensor]:
        """Backward of ``Scale E[softplus(-(f - r))]``.

        Returns:
            Detached, for every pair: the loss, and ``f - r``.
        """
        fake_samples = self.Generator(Noise, Conditions)
        fake = self.Discriminator(Preprocessor(fake_samples), Conditions)
        real = self.Discriminator(Preprocessor(RealSamples.detach()), Conditions)
        _above(fake, real, Scale).backward()
        return _elements(fake, real)

    def AccumulateDiscriminatorGradients(
        self,
        Noise: Tensor,
        RealSamples: Tensor,
        Conditions: Any,
        Gamma: float,
        Scale: float = 1,
        Preprocessor: Preprocessor = _unchanged,
    ) -> list[Tensor]:
        """One backward of ``Scale (E[softplus(-(r - f))] + Gamma / 2 (R1 + R2))``, with the logits
        shared between the loss and both penalties, and their backward too where the critic is one
        for :func:`~ganloss_fast.logits_and_penalty`.

        Returns:
            Detached: for every pair the loss, and ``r - f``; for every sample R1, and R2.
        """
        real_samples = RealSamples.detach().requires_grad_(True)
        with torch.no_grad():
            fake_samples = self.Generator(Noise, Conditions)
        fake_samples = fake_samples.detach().requires_grad_(True)
        real = self.Discriminator(Preprocessor(real_samples), Conditions)
        fake = self.Discriminator(Preprocessor(fake_samples), Conditions)
        real, r1 = logits_and_penalty(real, real_samples, _EACH)
        fake, r2 = logits_and_penalty(fake, fake_samples, _EACH)
        (_above(real, fake, Scale) + (r1 + r2).mean() * (Gamma / 2 * Scale)).backward()
        return [*_elements(real, fake), r1.detach(), r2.detach()]


class R3GANLoss:
    """The loss of R3GAN as its training loop calls it.

    Args:
        G: the generator, ``(z, c) -> images``.
        D: the discriminator, ``(images, c) -> logits`` [B].
        augment_pipe: ``images -> images``, run in float32, or None.
        report: takes ``(name, tensor)`` for the statistics of a step, as
            ``training_stats.report``; its logits are relativistic, as there. None: no statistics.
    """

    def __init__(
        self,
        G: Callable[..., Tensor],
        D: Callable[..., Tensor],
        augment_pipe: Callable[[Tensor], Tensor] | None = None,
        *,
        report: Report = None,
    ) -> None:
        self.trainer = AdversarialTraining(G, D)
        self.augment_pipe = augment_pipe
        self.reports = Reports(report)

    def preprocessor(self, images: Tensor) -> Tensor:
        """Augmented images in their own dtype."""
        if self.augment_pipe is None:
            return images
        return self.augment_pipe(images.to(torch.float32)).to(images.dtype)

    def accumulate_gradients(
        self,
        phase: str,
        real_img: Tensor,
        real_c: Tensor,
        gen_z: Tensor,
        gamma: float,
        gain: float,
    ) -> None:
        """Adds the gradients of a phase to the parameters.

        Args:
            phase: ``"G"`` or ``"D"``.
            real_img: real images [B, C, H, W].
            real_c: labels of real and of generated images.
            gen_z: latents of generated images.
            gamma: weight of R1 and R2, each ``gamma / 2``.
            gain: factor of the loss.

        Raises:
            ganloss_fast.compat.UnknownMode: for another phase.
        """
        check_mode("phase", phase, ("G", "D"))
        if phase == "G":
            loss, logits = self.trainer.AccumulateGeneratorGradients(
                gen_z, real_img, real_c, gain, self.preprocessor
            )
            self._report("fake", "Loss/G/loss", logits, loss)
            return
        loss, logits, r1, r2 = self.trainer.AccumulateDiscriminatorGradients(
            gen_z, real_img, real_c, gamma, gain, self.preprocessor
        )
        self._report("real", "Loss/D/loss", logits, loss)
        if self.reports:
            self.reports("Loss/r1_penalty", r1)
            self.reports("Loss/r2_penalty", r2)

    def _report(self, side: str, name: str, logits: Tensor, loss: Tensor) -> None:
        if self.reports:
            self.reports.logits(side, logits)
            self.reports(name, loss)
