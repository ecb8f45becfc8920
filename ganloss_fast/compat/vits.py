"""VITS (jaywalnut310/vits): ``losses.py``, without its ``kl_loss``, which is no GAN's, and the
discriminators of ``models.py``.

HiFi-GAN's losses, computed in float32, with the real maps detached.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ganloss_fast.compat import hifigan
from ganloss_fast.compat._audio_discriminators import PairedDiscriminators, ScaleDiscriminator
from ganloss_fast.compat.hifigan import DiscriminatorP, discriminator_loss, generator_loss

__all__ = [
    "DiscriminatorP",
    "DiscriminatorS",
    "MultiPeriodDiscriminator",
    "discriminator_loss",
    "feature_loss",
    "generator_loss",
]


class DiscriminatorS(ScaleDiscriminator):
    """A discriminator of the waveform (Kim et al., 2021): audio [B, 1, T] to logits [B, n] and
    seven maps."""

    layers = (
        (16, 15, 1, 1),
        (64, 41, 4, 4),
        (256, 41, 4, 16),
        (1024, 41, 4, 64),
        (1024, 41, 4, 256),
        (1024, 5, 1, 1),
    )


class MultiPeriodDiscriminator(PairedDiscriminators):
    """One of :class:`DiscriminatorS` and five of HiFi-GAN's
    :class:`~ganloss_fast.compat.hifigan.DiscriminatorP`.

    ``net_d(y, y_hat)`` returns ``(y_d_rs, y_d_gs, fmap_rs, fmap_gs)``, as published, to rounding.
    In the discriminator's step each part judges real and generated audio by one forward; in the
    generator's they stay apart, since no loss of VITS walks back from what is said of real audio.

    Args:
        use_spectral_norm: the norm of all layers, in place of a weight norm. In training it moves
            with every forward, so that there is nothing to be shared.
        detach_real: leaves the graph of what is said of real audio out of the generator's step, and
            the memory that it holds. In the discriminator's step generated audio then has to be
            detached, as published.
    """

    matches_real = False

    def __init__(self, use_spectral_norm: bool = False, *, detach_real: bool = False) -> None:
        parts: list[nn.Module] = [DiscriminatorS(use_spectral_norm)]
        parts += [
            DiscriminatorP(period, use_spectral_norm=use_spectral_norm)
            for period in hifigan.PERIODS
        ]
        super().__init__(parts, detach_real)


def feature_loss(fmap_r: Sequence[Sequence[Tensor]], fmap_g: Sequence[Sequence[Tensor]]) -> Tensor:
    """As :func:`ganloss_fast.compat.hifigan.feature_loss`, with the real maps detached."""
    return hifigan.feature_loss(fmap_r, fmap_g, detach_real=True)
