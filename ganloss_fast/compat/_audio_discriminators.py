"""Discriminators of vocoders, which judge real and generated audio in one call.

Layers, their names, parameters and the keys of the ``state_dict`` are those of HiFi-GAN and its
descendants. These run every discriminator twice; here one forward serves both, where that is the
same: weights of many megabytes are read and normalised once, and the backward writes their
gradients once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm
from torch.nn.utils.parametrizations import weight_norm

from ganloss_fast.checks import check_same_device, check_tensor
from ganloss_fast.joint_forward import forward_together, what_keeps_apart

LEAK = 0.1
# What checkpoints call the magnitudes and directions of a weight norm.
_PUBLISHED = {"original0": "weight_g", "original1": "weight_v"}

Judged = tuple[Tensor, list[Tensor]]
JudgedPairs = tuple[list[Tensor], list[Tensor], list[list[Tensor]], list[list[Tensor]]]


def _publish_keys(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for current, published in _PUBLISHED.items():
        key = f"{prefix}parametrizations.weight.{current}"
        if key in state:
            state[prefix + published] = state.pop(key)


def normed(convolution: nn.Module, use_spectral_norm: bool = False) -> nn.Module:
    """With one of the two norms; the ``state_dict`` has the keys of published checkpoints."""
    if use_spectral_norm:
        return spectral_norm(convolution)
    weight_norm(convolution)
    convolution.register_state_dict_post_hook(_publish_keys)
    return convolution


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


class OfPeriod(Discriminator):
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
        super().__init__(
            [
                normed(
                    nn.Conv2d(before, after, (kernel_size, 1), (step, 1), padding=(2, 0)),
                    use_spectral_norm,
                )
                for before, after, step in zip(widths, widths[1:], steps)
            ],
            normed(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)), use_spectral_norm),
        )
        self.period = period

    def prepared(self, x: Tensor) -> Tensor:
        missing = -x.shape[2] % self.period
        if missing > 0:
            x = F.pad(x, (0, missing), mode="reflect")
        return x.view(*x.shape[:2], -1, self.period)


class OfScale(Discriminator):
    """Looks at the waveform itself, with grouped convolutions."""

    # (channels, size, stride, groups) of each convolution.
    layers: ClassVar[Sequence[tuple[int, int, int, int]]]

    def __init__(self, use_spectral_norm: bool = False) -> None:
        convs, before = [], 1
        for channels, size, stride, groups in self.layers:
            convolution = nn.Conv1d(
                before, channels, size, stride, padding=size // 2, groups=groups
            )
            convs.append(normed(convolution, use_spectral_norm))
            before = channels
        super().__init__(convs, normed(nn.Conv1d(before, 1, 3, padding=1), use_spectral_norm))


def _are_alike(y: Tensor, y_hat: Tensor) -> bool:
    return (y.shape[1:], y.dtype) == (y_hat.shape[1:], y_hat.dtype)


class Pairs(nn.Module):
    """Discriminators in a row, each of which judges real and generated audio.

    Args:
        discriminators: from audio to logits and maps, as :class:`Discriminator`.
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
        check_same_device("y_hat", check_tensor("y_hat", y_hat), "y", check_tensor("y", y))
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
        walks_alike = not is_of_generator or (
            self.matches_real and any(p.requires_grad for p in d.parameters())
        )
        if torch.is_autocast_enabled(y.device.type):  # a generator's output is in half precision
            dtype = torch.promote_types(y.dtype, y_hat.dtype)
            y, y_hat = y.to(dtype), y_hat.to(dtype)
        if walks_alike and _are_alike(y, y_hat) and what_keeps_apart(d) is None:
            return forward_together(d, y, y_hat)
        return d(y), d(y_hat)
