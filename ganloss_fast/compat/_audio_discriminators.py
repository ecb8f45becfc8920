"""Discriminators of vocoders, which judge real and generated audio in one call.

Layers, their names, parameters and the keys of the ``state_dict`` are those of HiFi-GAN and its
descendants. These run every discriminator twice; here one forward serves both, where that is the
same: weights of many megabytes are read and normalised once, and the backward writes their
gradients once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from ganloss_fast._torch import weight_of_norm
from ganloss_fast.checks import check_same_device, check_tensor, describe
from ganloss_fast.joint_forward import what_keeps_apart
from ganloss_fast.ops.terms import autocast_dtype

LEAK = 0.1

Judged = tuple[Tensor, list[Tensor]]
JudgedPairs = tuple[list[Tensor], list[Tensor], list[list[Tensor]], list[list[Tensor]]]


class _WeightNorm(nn.Module):
    """Before a convolution among the bases: its weight as directions and magnitudes, under the
    names of PyTorch's first weight norm, which published checkpoints have. (The present one has
    others, and its modules cannot be pickled.)"""

    convolve: ClassVar[Callable[..., Tensor]]
    weight: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        weight = self.weight.detach()
        del self.weight
        self.weight_g = nn.Parameter(torch.norm_except_dim(weight, 2, 0))
        self.weight_v = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        weight = weight_of_norm(self.weight_v, self.weight_g)
        how = self.stride, self.padding, self.dilation, self.groups
        return type(self).convolve(x, weight, self.bias, *how)


class _WeightNormedConv1d(_WeightNorm, nn.Conv1d):
    convolve = F.conv1d


class _WeightNormedConv2d(_WeightNorm, nn.Conv2d):
    convolve = F.conv2d


_WEIGHT_NORMED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: _WeightNormedConv1d,
    nn.Conv2d: _WeightNormedConv2d,
}


def normed(
    kind: type[nn.Module], *args: Any, use_spectral_norm: bool = False, **kwargs: Any
) -> nn.Module:
    """A convolution with one of the two norms."""
    if use_spectral_norm:
        return spectral_norm(kind(*args, **kwargs))
    return _WEIGHT_NORMED[kind](*args, **kwargs)


class Discriminator(nn.Module):
    """Convolutions with a leaky ReLU behind each, and a last one, whose map are the logits.

    Audio [B, 1, T] to the logits [B, n] and the maps of all convolutions.
    """

    def __init__(self, convs: Iterable[nn.Module], conv_post: nn.Module) -> None:
        super().__init__()
        self.convs = nn.ModuleList(convs)
        self.conv_post = conv_post

    def prepared(self, x: Tensor) -> Tensor:
        """What the first convolution sees."""
        return x

    def forward(self, x: Tensor) -> Judged:
        x = self.prepared(x)
        maps = []
        for layer in self.convs:
            x = F.leaky_relu(layer(x), LEAK)
            maps.append(x)
        maps.append(self.conv_post(x))
        return maps[-1].flatten(1), maps

    def both(self, y: Tensor, y_hat: Tensor) -> tuple[Judged, Judged]:
        """What it says of either, by one forward."""
        logits, maps = self(torch.cat([y, y_hat]))
        # Not two slices: the backward would fill up each with zeros, and add them.
        halves = [out.split([len(y), len(y_hat)]) for out in (logits, *maps)]
        (y_d_r, *fmap_r), (y_d_g, *fmap_g) = zip(*halves)
        return (y_d_r, fmap_r), (y_d_g, fmap_g)


class PeriodDiscriminator(Discriminator):
    """Looks at every ``period``-th sample: audio folded to [B, 1, T / period, period]."""

    def __init__(
        self,
        period: int,
        kernel_size: int,
        stride: int,
        use_spectral_norm: bool,
        multiplier: float = 1.0,
    ) -> None:
        widths = [1, *(int(width * multiplier) for width in (32, 128, 512, 1024, 1024))]
        steps = (stride, stride, stride, stride, 1)
        convolution = partial(normed, nn.Conv2d, use_spectral_norm=use_spectral_norm)
        super().__init__(
            [
                convolution(before, after, (kernel_size, 1), (step, 1), padding=(2, 0))
                for before, after, step in zip(widths, widths[1:], steps)
            ],
            convolution(widths[-1], 1, (3, 1), padding=(1, 0)),
        )
        self.period = period

    def prepared(self, x: Tensor) -> Tensor:
        missing = -x.shape[2] % self.period
        if missing > 0:
            x = F.pad(x, (0, missing), mode="reflect")
        return x.view(*x.shape[:2], x.shape[2] // self.period, self.period)


class ScaleDiscriminator(Discriminator):
    """Looks at the waveform itself, with grouped convolutions."""

    # (channels, size, stride, groups) of each convolution.
    layers: ClassVar[Sequence[tuple[int, int, int, int]]]

    def __init__(self, use_spectral_norm: bool = False) -> None:
        convolution = partial(normed, nn.Conv1d, use_spectral_norm=use_spectral_norm)
        convs, before = [], 1
        for channels, size, stride, groups in self.layers:
            half = size // 2
            convs.append(convolution(before, channels, size, stride, half, groups=groups))
            before = channels
        super().__init__(convs, convolution(before, 1, 3, padding=1))


def _check_audio(name: str, audio: Tensor) -> Tensor:
    if check_tensor(name, audio).dim() != 3:
        raise ValueError(f"{name}: expected audio [B, 1, T], got {describe(audio)}.")
    return audio


def _are_alike(y: Tensor, y_hat: Tensor) -> bool:
    return (y.shape[1:], y.dtype) == (y_hat.shape[1:], y_hat.dtype)


class PairedDiscriminators(nn.Module):
    """Discriminators in a row, each of which judges real and generated audio.

    Args:
        discriminators: of :class:`Discriminator`; others, from audio to logits and maps too, run
            once for each side.
        detach_real: leaves what is said of real audio without a graph in the generator's step,
            which is told by generated audio that requires grad. The gradients of the generator are
            the same.
    """

    # Whether the generator's loss walks back from real maps too.
    matches_real: ClassVar[bool] = True

    def __init__(self, discriminators: Iterable[nn.Module], detach_real: bool) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(discriminators)
        self.detach_real = detach_real

    def seen(self, audio: Tensor) -> Iterator[Tensor]:
        """What each discriminator sees of the audio."""
        for _ in self.discriminators:
            yield audio

    def forward(self, y: Tensor, y_hat: Tensor) -> JudgedPairs:
        """Logits on real and on generated audio, and maps alike: ``y_d_rs, y_d_gs, fmap_rs,
        fmap_gs``, a list each, with an entry for every discriminator.

        Args:
            y: real audio [B, 1, T].
            y_hat: generated audio, alike. Detached in the discriminator's step.
        """
        check_same_device("y_hat", _check_audio("y_hat", y_hat), "y", _check_audio("y", y))
        y_d_rs, y_d_gs, fmap_rs, fmap_gs = [], [], [], []
        for d, real, fake in zip(self.discriminators, self.seen(y), self.seen(y_hat), strict=True):
            (y_d_r, fmap_r), (y_d_g, fmap_g) = self._judged(d, real, fake)
            y_d_rs.append(y_d_r)
            y_d_gs.append(y_d_g)
            fmap_rs.append(fmap_r)
            fmap_gs.append(fmap_g)
        return y_d_rs, y_d_gs, fmap_rs, fmap_gs

    def _judged(self, d: nn.Module, y: Tensor, y_hat: Tensor) -> tuple[Judged, Judged]:
        is_of_generator = torch.is_grad_enabled() and y_hat.requires_grad
        if is_of_generator and self.detach_real:
            with torch.no_grad():
                of_real = d(y)
            return of_real, d(y_hat)
        if autocast_dtype(y.device) is not None:  # a generator's output is in half precision
            dtype = torch.promote_types(y.dtype, y_hat.dtype)
            y, y_hat = y.to(dtype), y_hat.to(dtype)
        if (
            isinstance(d, Discriminator)
            and _are_alike(y, y_hat)
            and what_keeps_apart(d) is None
            and (not is_of_generator or self._walks_back_from_both(d))
        ):
            return d.both(y, y_hat)
        return d(y), d(y_hat)

    def _walks_back_from_both(self, d: nn.Module) -> bool:
        """Whether the generator's backward walks through what is said of real audio anyway."""
        return self.matches_real and any(p.requires_grad for p in d.parameters())
