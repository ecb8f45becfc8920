"""SEED-Voken and Open-MAGVIT2 (TencentARC/SEED-Voken): ``modules/losses/vqperceptual.py``.

taming's functions, a non-saturating loss of the mean logit of every sample, and LeCam.
"""

from __future__ import annotations

from torch import Tensor

from ganloss_fast.checks import check_tensor, describe
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
