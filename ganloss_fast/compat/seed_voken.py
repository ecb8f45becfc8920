"""SEED-Voken and Open-MAGVIT2 (TencentARC/SEED-Voken): ``modules/losses/vqperceptual.py``.

taming's functions, and a non-saturating loss of the mean logit of every sample.
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

__all__ = [
    "adopt_weight",
    "calculate_adaptive_weight",
    "hinge_d_loss",
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
