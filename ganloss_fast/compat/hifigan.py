"""HiFi-GAN (jik876/hifi-gan): the discriminators and losses of ``models.py``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from ganloss_fast.compat._audio_discriminators import (
    PairedDiscriminators,
    PeriodDiscriminator,
    ScaleDiscriminator,
)
from ganloss_fast.compat._lists import as_numbers, check_maps, generator_terms, side_terms
from ganloss_fast.losses.matching import feature_matching_loss as matching_loss
from ganloss_fast.losses.table import LeastSquares

__all__ = [
    "DiscriminatorP",
    "DiscriminatorS",
    "MultiPeriodDiscriminator",
    "MultiScaleDiscriminator",
    "discriminator_loss",
    "feature_loss",
    "generator_loss",
]

PERIODS = (2, 3, 5, 7, 11)
_LEAST_SQUARES = LeastSquares()


class DiscriminatorP(PeriodDiscriminator):
    """A discriminator of every ``period``-th sample (Kong et al., 2020): audio [B, 1, T] to logits
    [B, n] and six maps."""

    def __init__(
        self, period: int, kernel_size: int = 5, stride: int = 3, use_spectral_norm: bool = False
    ) -> None:
        super().__init__(period, kernel_size, stride, use_spectral_norm)


class DiscriminatorS(ScaleDiscriminator):
    """A discriminator of the waveform (Kong et al., 2020, after Kumar et al., 2019): audio
    [B, 1, T] to logits [B, n] and eight maps."""

    layers = (
        (128, 15, 1, 1),
        (128, 41, 2, 4),
        (256, 41, 2, 16),
        (512, 41, 4, 16),
        (1024, 41, 4, 16),
        (1024, 41, 1, 16),
        (1024, 5, 1, 1),
    )


class MultiPeriodDiscriminator(PairedDiscriminators):
    """Five of :class:`DiscriminatorP`, each by one forward for real and generated audio.

    ``mpd(y, y_hat)`` returns ``(y_d_rs, y_d_gs, fmap_rs, fmap_gs)``, as published, to rounding.
    Hooks of its parts see both halves in one call, and what is returned are views, which torch lets
    nobody change in place.

    Args:
        detach_real: as published, what is said of real audio has a graph in the generator's step
            too. True leaves it out wherever the generated audio requires grad, and with it a walk
            whose gradients the next ``zero_grad`` throws away; the generator learns the same. In
            the discriminator's step generated audio then has to be detached, as published.
    """

    def __init__(self, *, detach_real: bool = False) -> None:
        super().__init__((DiscriminatorP(period) for period in PERIODS), detach_real)


class MultiScaleDiscriminator(PairedDiscriminators):
    """Three of :class:`DiscriminatorS`, on audio at its rate, at half and at a quarter of it.

    ``msd(y, y_hat)`` is as :class:`MultiPeriodDiscriminator`. The first part has a spectral norm,
    which in training moves with every forward: it judges real and generated audio apart.
    """

    def __init__(self, *, detach_real: bool = False) -> None:
        super().__init__((DiscriminatorS(first) for first in (True, False, False)), detach_real)
        self.meanpools = nn.ModuleList(nn.AvgPool1d(4, 2, padding=2) for _ in range(2))

    def seen(self, audio: Tensor) -> Iterator[Tensor]:
        yield audio
        for pool in self.meanpools:
            audio = pool(audio)
            yield audio


def discriminator_loss(
    disc_real_outputs: Sequence[Tensor],
    disc_generated_outputs: Sequence[Tensor],
    *,
    floats: bool = True,
) -> tuple[Tensor, list[float] | list[Tensor], list[float] | list[Tensor]]:
    """The least-squares loss over all discriminators, and its terms for the log.

    .. math:: \\sum_k E[(1 - r_k)^2] + E[g_k^2]

    Args:
        disc_real_outputs: logits on real audio, a tensor for each discriminator.
        disc_generated_outputs: logits on generated audio, alike.
        floats: the terms as Python numbers, as published. They come by one transfer, which waits
            for the device, breaks the graph of torch.compile and cannot be captured in a CUDA
            graph. False: detached tensors, and none of that.

    Returns:
        ``(loss, r_losses, g_losses)``: a 0-d tensor, and for each side a list of one number, or
        0-d tensor, for each discriminator. Half precision gives float32.
    """
    total, real, fake = side_terms(
        "disc_real_outputs",
        disc_real_outputs,
        "disc_generated_outputs",
        disc_generated_outputs,
        _LEAST_SQUARES,
    )
    if not floats:
        return total, list(real.detach().unbind()), list(fake.detach().unbind())
    r_losses, g_losses = as_numbers(real, fake)
    return total, r_losses, g_losses


def generator_loss(disc_outputs: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The least-squares loss of the generator, and its terms.

    .. math:: \\sum_k E[(1 - g_k)^2]

    Returns:
        ``(loss, gen_losses)``: a 0-d tensor, and a list of them, all with gradients. They share
        one graph: call ``backward`` once, on ``loss`` or on a sum of terms such as
        ``gen_losses[0] + 0.1 * gen_losses[1]``.
    """
    return generator_terms("disc_outputs", disc_outputs, _LEAST_SQUARES)


def feature_loss(
    fmap_r: Sequence[Sequence[Tensor]],
    fmap_g: Sequence[Sequence[Tensor]],
    *,
    detach_real: bool = False,
) -> Tensor:
    """Feature matching over all maps of all discriminators.

    .. math:: 2 \\sum_k \\sum_j E|r_{kj} - g_{kj}|

    Args:
        fmap_r: maps of real audio: a list for each discriminator.
        fmap_g: maps of generated audio, alike.
        detach_real: as published, the gradient goes into the real maps too, back through the
            discriminators, and the next ``zero_grad`` throws it away. True leaves that walk out;
            the generator learns the same.
    """
    return matching_loss(
        check_maps("fmap_r", fmap_r),
        check_maps("fmap_g", fmap_g),
        weight=2.0,
        detach_real=detach_real,
    )
