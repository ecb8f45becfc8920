"""VITS (jaywalnut310/vits): ``losses.py``, without its ``kl_loss``, which is no GAN's.

HiFi-GAN's losses, computed in float32, with the real maps detached.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ganloss_fast.compat import hifigan
from ganloss_fast.compat.hifigan import discriminator_loss, generator_loss

__all__ = ["discriminator_loss", "feature_loss", "generator_loss"]


def feature_loss(fmap_r: Sequence[Sequence[Tensor]], fmap_g: Sequence[Sequence[Tensor]]) -> Tensor:
    """As :func:`ganloss_fast.compat.hifigan.feature_loss`, with the real maps detached."""
    return hifigan.feature_loss(fmap_r, fmap_g, detach_real=True)
