"""TiTok and MaskBit (bytedance/1d-tokenizer): ``modeling/modules/losses.py``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from ganloss_fast.compat._criteria import check_mode
from ganloss_fast.compat._tokenizer_module import PIXELS, Network, check_network
from ganloss_fast.compat.taming import hinge_d_loss
from ganloss_fast.losses.adversarial import generator_loss
from ganloss_fast.losses.composite.composite_loss import composite_loss
from ganloss_fast.losses.lecam import lecam_regularization
from ganloss_fast.losses.sides import mean_logits

__all__ = [
    "ReconstructionLoss_Single_Stage",
    "ReconstructionLoss_Stage2",
    "compute_lecam_loss",
    "hinge_d_loss",
]


def compute_lecam_loss(
    logits_real_mean: Tensor,
    logits_fake_mean: Tensor,
    ema_logits_real_mean: Tensor,
    ema_logits_fake_mean: Tensor,
) -> Tensor:
    """``max(0, r - ema f)^2 + max(0, ema r - f)^2`` of mean logits.

    The codebase keeps the averages itself, and moves them behind this call. No gradient flows to
    them. :class:`ganloss_fast.LeCam` does both.
    """
    return lecam_regularization(
        logits_real_mean, logits_fake_mean, ema_logits_real_mean, ema_logits_fake_mean
    )


class ReconstructionLoss_Stage2(Module):
    """The loss of TiTok's tokenizer (Yu et al., 2024), for the generator or the discriminator.

    .. math:: L_G = w_r \\, E[d(x, \\hat x)] + w_p \\, E[P(x, \\hat x)] + w_q L_q -
        w_d f \\, E[D(\\hat x)]

    in float32, autocast or not. The discriminator's is the hinge loss with its half, times ``f``,
    and LeCam on mean logits. As there, the discriminator is frozen in the generator's turn and
    learns in its own, and averages of its mean logits are the buffers ``ema_real_logits_mean`` and
    ``ema_fake_logits_mean`` [1]. Real images get no gradient, which nobody could read there.

    Args:
        config: has ``losses`` with the codebase's names, ``reconstruction_loss`` (``"l1"`` or
            ``"l2"``), ``discriminator_start`` and the weights.
        perceptual_loss: the perceptual network, ``(inputs, reconstructions) -> distances``, of
            which the mean counts. Put into ``eval()`` mode here, once.
        discriminator: the discriminator, images to logits.

    Raises:
        ValueError: for another ``reconstruction_loss``; when called, for another ``mode``.
        TypeError: if a network is missing.
    """

    ema_real_logits_mean: Tensor
    ema_fake_logits_mean: Tensor

    def __init__(
        self,
        config: Any,
        *,
        perceptual_loss: Network | None = None,
        discriminator: Network | None = None,
    ) -> None:
        super().__init__()
        check_network("perceptual_loss", perceptual_loss, "your codebase's PerceptualLoss(...)")
        check_network("discriminator", discriminator, "NLayerDiscriminator()")
        losses = config.losses
        check_mode("reconstruction_loss", losses.reconstruction_loss, list(PIXELS))
        self.discriminator: Any = discriminator
        self.perceptual_loss: Any = perceptual_loss
        if isinstance(perceptual_loss, Module):
            perceptual_loss.eval()
        self.reconstruction_loss = losses.reconstruction_loss
        self.reconstruction_weight = losses.reconstruction_weight
        self.quantizer_weight = losses.quantizer_weight
        self.perceptual_weight = losses.perceptual_weight
        self.discriminator_iter_start = losses.discriminator_start
        self.discriminator_factor = losses.discriminator_factor
        self.discriminator_weight = losses.discriminator_weight
        self.lecam_regularization_weight = losses.lecam_regularization_weight
        self.lecam_ema_decay = losses.get("lecam_ema_decay", 0.999)
        if self.lecam_regularization_weight > 0.0:
            self.register_buffer("ema_real_logits_mean", torch.zeros(1))
            self.register_buffer("ema_fake_logits_mean", torch.zeros(1))
        self.config = config

    def forward(
        self,
        inputs: Tensor,
        reconstructions: Tensor,
        extra_result_dict: Any,
        global_step: int,
        mode: str = "generator",
    ) -> tuple[Tensor, dict[str, Any]]:
        """A loss, and values for the log under the codebase's names.

        Args:
            inputs: images [B, C, H, W].
            reconstructions: what the model made of them.
            extra_result_dict: ``"quantizer_loss"``, ``"commitment_loss"`` and ``"codebook_loss"``.
            global_step: of the training.
            mode: ``"generator"`` or ``"discriminator"``.
        """
        check_mode("mode", mode, ("generator", "discriminator"))
        with torch.autocast(inputs.device.type, enabled=False):
            if mode == "discriminator":
                return self._discriminator(inputs.float(), reconstructions.float(), global_step)
            return self._generator(
                inputs.float(), reconstructions.float(), extra_result_dict, global_step
            )

    def should_discriminator_be_trained(self, global_step: int) -> bool:
        return bool(global_step >= self.discriminator_iter_start)

    def _factor(self, global_step: int) -> float:
        is_on = self.should_discriminator_be_trained(global_step)
        return self.discriminator_factor if is_on else 0

    def _learns(self, does: bool) -> None:
        if isinstance(self.discriminator, Module):
            self.discriminator.requires_grad_(does)

    def of_latents(
        self, results: Any, distance: Tensor
    ) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        """The weighed loss of pixels and that of the latents, and what is logged of the latter."""
        weighed = self.quantizer_weight * results["quantizer_loss"]
        log = {
            "quantizer_loss": weighed,
            "commitment_loss": results["commitment_loss"],
            "codebook_loss": results["codebook_loss"],
        }
        return distance, weighed, log

    def _generator(
        self, inputs: Tensor, reconstructions: Tensor, results: Any, global_step: int
    ) -> tuple[Tensor, dict[str, Any]]:
        pixels = PIXELS[self.reconstruction_loss]
        distances = composite_loss(
            pixels=pixels(reconstructions, inputs, self.reconstruction_weight, detach_target=False)
        ).total
        maps = self.perceptual_loss(inputs.contiguous(), reconstructions.contiguous())
        perceptual = self.perceptual_weight * maps.mean()
        factor, g_loss = self._factor(global_step), inputs.new_zeros(())
        if factor > 0.0 and self.discriminator_weight > 0.0:
            self._learns(False)
            g_loss = generator_loss(self.discriminator(reconstructions.contiguous()), "hinge")
        weighed = self.discriminator_weight * factor * g_loss
        distance, of_latents, log = self.of_latents(results, distances)
        total = distance + perceptual + of_latents + weighed
        logged = {
            "total_loss": total,
            "reconstruction_loss": distance,
            "perceptual_loss": perceptual,
            **log,
            "weighted_gan_loss": weighed,
            "discriminator_factor": torch.tensor(factor),
            "gan_loss": g_loss,
        }
        found: dict[str, Any] = {name: value.detach() for name, value in logged.items()}
        return total, found | {"d_weight": self.discriminator_weight}

    def _discriminator(
        self, inputs: Tensor, reconstructions: Tensor, global_step: int
    ) -> tuple[Tensor, dict[str, Any]]:
        self._learns(True)
        real, fake = (
            self.discriminator(inputs.detach()),
            self.discriminator(reconstructions.detach()),
        )
        loss = self._factor(global_step) * hinge_d_loss(real, fake)
        is_regularised = self.lecam_regularization_weight > 0.0
        logits = [real, fake] if is_regularised else [real.detach(), fake.detach()]
        real_mean, fake_mean = mean_logits(logits).unbind()
        lecam = inputs.new_zeros(())
        if is_regularised:
            of_means = compute_lecam_loss(
                real_mean, fake_mean, self.ema_real_logits_mean, self.ema_fake_logits_mean
            )
            lecam = self.lecam_regularization_weight * of_means
            loss = loss + lecam
            self.ema_real_logits_mean = self._moved(self.ema_real_logits_mean, real_mean)
            self.ema_fake_logits_mean = self._moved(self.ema_fake_logits_mean, fake_mean)
        logged = {
            "discriminator_loss": loss,
            "logits_real": real_mean,
            "logits_fake": fake_mean,
            "lecam_loss": lecam,
        }
        return loss, {name: value.detach() for name, value in logged.items()}

    def _moved(self, average: Tensor, mean: Tensor) -> Tensor:
        decay: float = self.lecam_ema_decay
        return average * decay + mean.detach() * (1 - decay)


class ReconstructionLoss_Single_Stage(ReconstructionLoss_Stage2):
    """:class:`ReconstructionLoss_Stage2` for a tokenizer that is trained at once; with
    ``config.model.vq_model.quantize_mode`` ``"vae"`` the latents' loss is
    ``kl_weight sum(kl) / B`` of a posterior, and pixels count ``exp(-logvar)``."""

    def __init__(
        self,
        config: Any,
        *,
        perceptual_loss: Network | None = None,
        discriminator: Network | None = None,
    ) -> None:
        super().__init__(config, perceptual_loss=perceptual_loss, discriminator=discriminator)
        self.quantize_mode = config.model.vq_model.get("quantize_mode", "vq")
        check_mode("quantize_mode", self.quantize_mode, ("vq", "vae"))
        if self.quantize_mode == "vae":
            self.kl_weight = config.losses.get("kl_weight", 1e-6)
            start = torch.ones(()) * config.losses.get("logvar_init", 0.0)
            self.logvar = torch.nn.Parameter(start, requires_grad=False)

    def of_latents(
        self, results: Any, distance: Tensor
    ) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        if self.quantize_mode == "vq":
            return super().of_latents(results, distance)
        kl = results.kl()
        weighed = self.kl_weight * kl.sum() / kl.shape[0]
        return distance / self.logvar.exp(), weighed, {"kl_loss": weighed}
