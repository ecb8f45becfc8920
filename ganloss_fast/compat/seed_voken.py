"""SEED-Voken and Open-MAGVIT2 (TencentARC/SEED-Voken): ``modules/losses/vqperceptual.py``.

The loss module, taming's functions, a non-saturating loss of the mean logit of every sample, and
LeCam.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from ganloss_fast.checks import check_tensor, describe
from ganloss_fast.compat._tokenizer_module import Network, TokenizerLoss, check_optimizer_idx
from ganloss_fast.compat.taming import (
    adopt_weight,
    calculate_adaptive_weight,
    hinge_d_loss,
    vanilla_d_loss,
)
from ganloss_fast.losses.adversarial import discriminator_loss, generator_loss
from ganloss_fast.losses.lecam import lecam_regularization
from ganloss_fast.losses.sides import mean_logits

__all__ = [
    "LeCAM_EMA",
    "VQLPIPSWithDiscriminator",
    "adopt_weight",
    "calculate_adaptive_weight",
    "hinge_d_loss",
    "lecam_reg",
    "non_saturate_discriminator_loss",
    "non_saturate_gen_loss",
    "vanilla_d_loss",
]


def _means(name: str, logits: Tensor) -> Tensor:
    """[B], of patch logits [B, 1, H, W] or [B, 1, T, H, W]."""
    if check_tensor(name, logits).dim() < 2:
        raise ValueError(f"{name}: expected patches for each sample, got {describe(logits)}.")
    return logits.flatten(1).mean(1)


def non_saturate_gen_loss(logits_fake: Tensor) -> Tensor:
    """``E_b[softplus(-mean f_b)]`` of patch logits [B, 1, H, W]."""
    return generator_loss(_means("logits_fake", logits_fake), "bce")


def non_saturate_discriminator_loss(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """``E_b[softplus(-mean r_b)] + E_b[softplus(mean f_b)]``, without the half of the others."""
    return discriminator_loss(
        _means("logits_real", logits_real), _means("logits_fake", logits_fake), "bce"
    )


class LeCAM_EMA:  # their name
    """Moving averages of the mean logits, as 0-d tensors on the device, where the codebase waits
    for it twice a step."""

    logits_real_ema: float | Tensor
    logits_fake_ema: float | Tensor

    def __init__(self, init: float = 0.0, decay: float = 0.999) -> None:
        self.logits_real_ema = init
        self.logits_fake_ema = init
        self.decay = decay

    def update(self, logits_real: Tensor, logits_fake: Tensor) -> None:
        """Moves both averages by this batch."""
        real, fake = mean_logits([logits_real.detach(), logits_fake.detach()]).unbind()
        self.logits_real_ema = self.logits_real_ema * self.decay + real * (1 - self.decay)
        self.logits_fake_ema = self.logits_fake_ema * self.decay + fake * (1 - self.decay)


def lecam_reg(real_pred: Tensor, fake_pred: Tensor, lecam_ema: LeCAM_EMA) -> Tensor:
    """``E[max(0, r - ema f)^2] + E[max(0, ema r - f)^2]``; its weight is yours."""
    return lecam_regularization(
        real_pred, fake_pred, lecam_ema.logits_real_ema, lecam_ema.logits_fake_ema
    )


class VQLPIPSWithDiscriminator(TokenizerLoss):
    """The loss of Open-MAGVIT2 (Luo et al., 2024), for the generator or for the discriminator.

    .. math:: L_G = E|x - \\hat x| + w_p \\, E[P(x, \\hat x)] + \\lambda \\, L_{ns} +
        w_c (1 + \\rho \\, max(0, 1 - t / T)) \\, entropy + w_k \\, commitment

    The networks stay the codebase's, as in
    :class:`ganloss_fast.compat.taming.VQLPIPSWithDiscriminator`.

    Args:
        disc_start: the step from which on the discriminator counts.
        codebook_weight: ``w_c``.
        commit_weight: ``w_k``.
        codebook_enlarge_ratio: ``rho``; 0 leaves that factor out.
        codebook_enlarge_steps: ``T``.
        disc_loss: ``"hinge"``, ``"vanilla"`` or ``"non_saturate"``, of the discriminator.
        gen_loss_weight: ``lambda``; None: the adaptive weight.
        lecam_loss_weight: weight of LeCam in the discriminator's loss; None leaves it out.
        use_blur: not used: the discriminator is made already. So are all arguments of it.
        perceptual_loss: the perceptual network; for it and the others see there.

    Raises:
        ValueError, TypeError: as there.
    """

    D_LOSSES: ClassVar[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
        **TokenizerLoss.D_LOSSES,
        "non_saturate": non_saturate_discriminator_loss,
    }

    def __init__(
        self,
        disc_start: int,
        codebook_weight: float = 1.0,
        pixelloss_weight: float = 1.0,
        disc_num_layers: int = 3,
        disc_in_channels: int = 3,
        disc_factor: float = 1.0,
        disc_weight: float = 1.0,
        commit_weight: float = 0.25,
        codebook_enlarge_ratio: float = 3,
        codebook_enlarge_steps: int = 2000,
        perceptual_weight: float = 1.0,
        use_actnorm: bool = False,
        disc_conditional: bool = False,
        disc_ndf: int = 64,
        disc_loss: str = "hinge",
        gen_loss_weight: float | None = None,
        lecam_loss_weight: float | None = None,
        use_blur: bool = False,
        disc_num_channels: int = 3,
        disc_num_stages: int = 4,
        disc_hidden_channels: int = 128,
        blur_resample: bool = True,
        blur_kernel_size: int = 4,
        *,
        perceptual_loss: Network | None = None,
        discriminator: Network | None = None,
        discriminator_gradients: bool = True,
    ) -> None:
        super().__init__(
            disc_start,
            disc_loss,
            disc_factor,
            disc_weight,
            perceptual_weight,
            disc_conditional,
            perceptual_loss,
            discriminator,
            discriminator_gradients,
        )
        self.codebook_weight = codebook_weight
        self.pixel_weight = pixelloss_weight
        self.commit_weight = commit_weight
        self.codebook_enlarge_ratio = codebook_enlarge_ratio
        self.codebook_enlarge_steps = codebook_enlarge_steps
        self.gen_loss_weight = gen_loss_weight
        self.lecam_loss_weight = lecam_loss_weight
        self.lecam_ema = LeCAM_EMA()

    def forward(
        self,
        codebook_loss: Tensor,
        loss_break: Any,
        inputs: Tensor,
        reconstructions: Tensor,
        optimizer_idx: int,
        global_step: int,
        last_layer: Tensor | None = None,
        cond: Tensor | None = None,
        split: str = "train",
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """A loss, and 0-d tensors for the log under the codebase's names.

        Args:
            codebook_loss: entropy loss of the codebook, 0-d.
            loss_break: has ``commitment``, ``per_sample_entropy`` and ``codebook_entropy``.
            inputs: images [B, C, H, W].
            reconstructions: what the model made of them.
            optimizer_idx: 0 for the generator's loss, 1 for the discriminator's.
            global_step: of the training.
            last_layer: the weight of the decoder's last layer.
            cond: what the discriminator gets besides.
            split: the first part of the names in the log.
        """
        check_optimizer_idx(optimizer_idx)
        if optimizer_idx == 1:
            return self._discriminator(inputs, reconstructions, cond, global_step, split)
        maps = self.maps(inputs, reconstructions)
        distances = self.distances(inputs, reconstructions, maps)
        nll_loss = distances.total
        g_loss = non_saturate_gen_loss(self.logits(reconstructions, cond))
        factor = self.factor(global_step)
        if self.gen_loss_weight is None:
            loss, d_weight = self.weighed_sum(
                nll_loss, g_loss, reconstructions, last_layer, global_step
            )
        else:
            d_weight = nll_loss.new_full((), self.gen_loss_weight)
            loss = nll_loss + self.gen_loss_weight * factor * g_loss
        loss = loss + self._codebook_factor(global_step) * codebook_loss
        loss = loss + loss_break.commitment * self.commit_weight
        zero = nll_loss.new_zeros(())
        parts = {
            "reconstruct_loss": distances.parts["pixels"],
            "perceptual_loss": zero if maps is None else maps.mean(),
        }
        if self.training or factor == 0:
            is_on = factor != 0
            of_codebook = {"entropy_loss": codebook_loss} if is_on else {}
            logged = {
                "total_loss": loss,
                "per_sample_entropy": loss_break.per_sample_entropy,
                "codebook_entropy": loss_break.codebook_entropy,
                "commit_loss": loss_break.commitment,
                **of_codebook,
                "nll_loss": nll_loss,
                **parts,
                "d_weight": d_weight if is_on else zero,
                "disc_factor": torch.tensor(factor),
                "g_loss": d_weight * factor * g_loss if is_on else zero,
            }
        else:
            logged = {**parts, "g_loss": factor * g_loss}
        return loss, {f"{split}/{name}": value.detach() for name, value in logged.items()}

    def _codebook_factor(self, global_step: int) -> float:
        enlarged = self.codebook_enlarge_ratio * max(
            0.0, 1 - global_step / self.codebook_enlarge_steps
        )
        return self.codebook_weight * (1 + max(0.0, enlarged))

    def _discriminator(
        self,
        inputs: Tensor,
        reconstructions: Tensor,
        cond: Tensor | None,
        global_step: int,
        split: str,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        real, fake = self.both_logits(inputs, reconstructions, cond)
        factor = self.factor(global_step)
        adversarial = self.disc_loss(real, fake)
        lecam = adversarial.new_zeros(())
        loss = adversarial
        if self.lecam_loss_weight is not None:
            self.lecam_ema.update(real, fake)
            lecam = lecam_reg(real, fake, self.lecam_ema)
            loss = loss + self.lecam_loss_weight * lecam
        loss = factor * loss
        logged = {
            f"{split}/disc_loss": loss,
            **self.logged_logits(real, fake, split),
        }
        if factor == 0:
            logged = dict.fromkeys(logged, lecam.new_zeros(()))
        logged |= {
            f"{split}/disc_factor": torch.tensor(factor),
            f"{split}/lecam_loss": lecam,
            f"{split}/non_saturated_d_loss": adversarial,
        }
        return loss, {name: value.detach() for name, value in logged.items()}
