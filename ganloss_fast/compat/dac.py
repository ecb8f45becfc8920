"""Descript Audio Codec (descriptinc/descript-audio-codec): ``dac/nn/loss.py``. Fake comes first."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor

from ganloss_fast.compat._lists import check_maps, last_of_lists
from ganloss_fast.freezing import frozen
from ganloss_fast.joint_forward import forward_together
from ganloss_fast.losses.adversarial import discriminator_loss, generator_loss
from ganloss_fast.losses.matching import feature_matching_loss
from ganloss_fast.losses.table import LeastSquares

_LEAST_SQUARES = LeastSquares()
Maps = list[list[Tensor]]


def _waveform(audio: Any) -> Tensor:
    """Of an ``AudioSignal``, or a tensor itself."""
    waveform: Tensor = getattr(audio, "audio_data", audio)
    return waveform


class GANLoss(torch.nn.Module):
    """Least squares on all discriminators, and feature matching.

    Args:
        discriminator: gives, for a waveform, a list of feature maps for each of its parts, whose
            last is the logits.
        freeze: compute no weight gradients of the discriminator in ``generator_loss``. As
            published they are computed, and thrown away by the next ``zero_grad``.
        together: run the discriminator once for both sides in ``discriminator_loss``, which reads
            its weights once: see :func:`ganloss_fast.forward_together`, and what that refuses.
    """

    def __init__(
        self, discriminator: torch.nn.Module, *, freeze: bool = False, together: bool = False
    ) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.freeze = freeze
        self.together = together

    def forward(self, fake: Any, real: Any) -> tuple[Maps, Maps]:
        """The discriminator's outputs on both, fake first. ``AudioSignal`` or tensors."""
        return self.discriminator(_waveform(fake)), self.discriminator(_waveform(real))

    def discriminator_loss(self, fake: Any, real: Any) -> Tensor:
        """``sum_k E[f_k^2] + E[(1 - r_k)^2]``, of fake samples that are detached here."""
        detached = _waveform(fake).detach()
        if self.together:
            reals, fakes = forward_together(self.discriminator, _waveform(real), detached)
        else:
            fakes, reals = self.forward(detached, real)
        return discriminator_loss(
            last_of_lists("real", reals), last_of_lists("fake", fakes), _LEAST_SQUARES
        )

    def generator_loss(self, fake: Any, real: Any) -> tuple[Tensor, Tensor]:
        """``(sum_k E[(1 - f_k)^2], sum_k sum_{j < last} E|f_kj - r_kj|)``, real maps detached."""
        with frozen(self.discriminator) if self.freeze else contextlib.nullcontext():
            fakes = self.discriminator(_waveform(fake))
        with torch.no_grad():  # nothing walks back from real maps
            reals = self.discriminator(_waveform(real))
        return (
            generator_loss(last_of_lists("fake", fakes), _LEAST_SQUARES),
            feature_matching_loss(
                check_maps("real", reals), check_maps("fake", fakes), include_last=False
            ),
        )
