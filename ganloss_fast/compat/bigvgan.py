"""BigVGAN (NVIDIA/BigVGAN): ``loss.py``, whose adversarial losses are those of HiFi-GAN, and the
discriminators of ``discriminators.py`` that need no other library."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganloss_fast.compat._audio_discriminators import (
    Discriminator,
    PairedDiscriminators,
    PeriodDiscriminator,
    normed,
)
from ganloss_fast.compat.hifigan import discriminator_loss, feature_loss, generator_loss

__all__ = [
    "DiscriminatorP",
    "DiscriminatorR",
    "MultiPeriodDiscriminator",
    "MultiResolutionDiscriminator",
    "discriminator_loss",
    "feature_loss",
    "generator_loss",
]


class DiscriminatorP(PeriodDiscriminator):
    """A discriminator of every ``period``-th sample: audio [B, 1, T] to logits [B, n] and six maps.

    Args:
        h: the configuration: ``discriminator_channel_mult``.
    """

    def __init__(
        self,
        h: Any,
        period: int,
        kernel_size: int = 5,
        stride: int = 3,
        use_spectral_norm: bool = False,
    ) -> None:
        multiplier = h.discriminator_channel_mult
        super().__init__(period, kernel_size, stride, use_spectral_norm, multiplier)


class DiscriminatorR(Discriminator):
    """A discriminator of a magnitude spectrogram (Jang et al., 2021): audio [B, 1, T] to logits
    [B, n] and six maps.

    Args:
        cfg: the configuration: ``use_spectral_norm``, or ``mrd_use_spectral_norm`` in its place;
            ``discriminator_channel_mult``, or ``mrd_channel_mult``.
        resolution: the size of the transform, the hop and the size of the window, in samples.
    """

    def __init__(self, cfg: Any, resolution: tuple[int, int, int]) -> None:
        if len(resolution) != 3:
            raise ValueError(
                "resolution: expected the size of the transform, the hop and the size of the "
                f"window, got {resolution!r}."
            )
        spectral = getattr(cfg, "mrd_use_spectral_norm", cfg.use_spectral_norm)
        width = int(32 * getattr(cfg, "mrd_channel_mult", cfg.discriminator_channel_mult))

        def convolution(before: int, after: int, size: int, step: int) -> nn.Module:
            how = {"stride": (1, step), "padding": (1, size // 2)}
            return normed(nn.Conv2d, before, after, (3, size), use_spectral_norm=spectral, **how)

        super().__init__(
            [
                convolution(1, width, 9, 1),
                convolution(width, width, 9, 2),
                convolution(width, width, 9, 2),
                convolution(width, width, 9, 2),
                convolution(width, width, 3, 1),
            ],
            convolution(width, 1, 3, 1),
        )
        self.resolution = resolution

    def prepared(self, x: Tensor) -> Tensor:
        size, hop, window = self.resolution
        x = F.pad(x, ((size - hop) // 2, (size - hop) // 2), mode="reflect").squeeze(1)
        rectangle = torch.ones(window, dtype=x.dtype, device=x.device)
        spectrum = torch.stft(
            x, size, hop, window, window=rectangle, center=False, return_complex=True
        )
        magnitude: Tensor = torch.view_as_real(spectrum).norm(dim=-1)
        return magnitude.unsqueeze(1)


class MultiPeriodDiscriminator(PairedDiscriminators):
    """One of :class:`DiscriminatorP` for each period in ``h.mpd_reshapes``, called as HiFi-GAN's.

    Args:
        h: the configuration: ``mpd_reshapes``, ``use_spectral_norm``,
            ``discriminator_channel_mult``.
        detach_real: as of :class:`ganloss_fast.compat.hifigan.MultiPeriodDiscriminator`.
    """

    def __init__(self, h: Any, *, detach_real: bool = False) -> None:
        spectral = h.use_spectral_norm
        super().__init__(
            (DiscriminatorP(h, period, use_spectral_norm=spectral) for period in h.mpd_reshapes),
            detach_real,
        )


class MultiResolutionDiscriminator(PairedDiscriminators):
    """One of :class:`DiscriminatorR` for each of the three ``cfg.resolutions``, called alike.

    Args:
        cfg: the configuration: ``resolutions``, and what :class:`DiscriminatorR` asks for.
        debug: without effect, as published.
        detach_real: as of :class:`ganloss_fast.compat.hifigan.MultiPeriodDiscriminator`.
    """

    def __init__(self, cfg: Any, debug: bool = False, *, detach_real: bool = False) -> None:
        if len(cfg.resolutions) != 3:
            raise ValueError(
                f"cfg.resolutions: expected three, got {len(cfg.resolutions)}: {cfg.resolutions!r}."
            )
        super().__init__((DiscriminatorR(cfg, each) for each in cfg.resolutions), detach_real)
