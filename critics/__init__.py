"""Small critics, written from the papers, that the tests and the benchmarks of penalties run on.

Nothing in them knows of this package: functional and in-place activations, spectral and weight
norm, residual branches and pooling are as people write them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm


def dcgan(width: int = 16, size: int = 32) -> nn.Module:
    """DCGAN (Radford et al., 2016) without normalisation, as WGAN-GP uses it."""
    layers: list[nn.Module] = []
    channels = 3
    while size > 4:
        layers += [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        channels, width, size = width, width * 2, size // 2
    layers += [nn.Conv2d(channels, 1, 4)]
    return nn.Sequential(*layers)


def multilayer_perceptron(width: int = 64, size: int = 16) -> nn.Module:
    """The fully connected critic of many WGAN-GP tutorials."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(3 * size * size, width),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Linear(width, width // 2),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Linear(width // 2, 1),
    )


class _ResidualBlock(nn.Module):
    """A block of SNGAN (Miyato et al., 2018): average pooling, pre-activation.

    The activation is in place, so the shortcut sees it too: an implementation relies on that.
    """

    def __init__(self, channels: int, width: int, activate: bool) -> None:
        super().__init__()
        self.activate = activate
        self.conv1 = spectral_norm(nn.Conv2d(channels, width, 3, padding=1))
        self.conv2 = spectral_norm(nn.Conv2d(width, width, 3, padding=1))
        self.shortcut = spectral_norm(nn.Conv2d(channels, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        if self.activate:
            x = F.relu_(x)
        x = self.conv2(F.relu_(self.conv1(x)))
        return F.avg_pool2d(x, 2) + F.avg_pool2d(self.shortcut(shortcut), 2)


class SpectralResNet(nn.Module):
    """A projection critic of the SNGAN / BigGAN family, with class labels if there are any."""

    def __init__(self, width: int = 16, size: int = 32, classes: int = 0) -> None:
        super().__init__()
        blocks, channels = [], 3
        while size > 4:
            blocks.append(_ResidualBlock(channels, width, activate=channels != 3))
            channels, width, size = width, width * 2, size // 2
        self.blocks = nn.Sequential(*blocks)
        self.linear = spectral_norm(nn.Linear(channels, 1))
        self.embedding = spectral_norm(nn.Embedding(classes, channels)) if classes else None

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        h = F.relu_(self.blocks(x)).sum((2, 3))
        logits = self.linear(h)
        if self.embedding is not None:
            logits = logits + (self.embedding(labels) * h).sum(1, keepdim=True)
        return logits


class HifiGanPeriod(nn.Module):
    """The period discriminator of HiFi-GAN (Kong et al., 2020), for a waveform [B, 1, T]."""

    def __init__(self, width: int = 4, period: int = 3) -> None:
        super().__init__()
        self.period = period
        widths = [1, width, width * 4, width * 16, width * 32, width * 32]
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv2d(widths[k], widths[k + 1], (5, 1), (3 if k < 4 else 1, 1), (2, 0)))
            for k in range(5)
        )
        self.last = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), 1, (1, 0)))

    def forward(self, x: Tensor) -> Tensor:
        missing = -x.shape[2] % self.period
        x = F.pad(x, (0, missing), "reflect")
        x = x.view(x.shape[0], 1, -1, self.period)
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.1)
        return self.last(x).flatten(1)


class _EqualizedConv(nn.Module):
    """Convolution with the learning rate equalised at run time (Karras et al., 2018)."""

    def __init__(self, channels: int, width: int, kernel: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None
        self.gain = 1 / math.sqrt(channels * kernel * kernel)

    def forward(self, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
        return F.conv2d(x, self.weight * self.gain, None, stride, padding)

    def activated(self, x: Tensor, stride: int = 1, padding: int = 0, gain: float = 1) -> Tensor:
        x = self(x, stride, padding) + self.bias.view(1, -1, 1, 1)
        return F.leaky_relu(x, 0.2) * (math.sqrt(2) * gain)


def _blur(x: Tensor, padding: tuple[int, int]) -> Tensor:
    """The [1, 3, 3, 1] filter, on every channel."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype, device=x.device)
    kernel = (taps[:, None] * taps / 64).expand(x.shape[1], 1, 4, 4)
    return F.conv2d(F.pad(x, padding * 2), kernel, groups=x.shape[1])


class StyleGan2(nn.Module):
    """The residual discriminator of StyleGAN2 (Karras et al., 2020).

    With ``group > 0`` it appends the standard deviation over groups of samples, which couples
    samples and keeps the second-order branch of everything below it.
    """

    def __init__(self, width: int = 16, size: int = 32, group: int = 0) -> None:
        super().__init__()
        self.group = group
        self.from_rgb = _EqualizedConv(3, width, 1)
        self.blocks = nn.ModuleList()
        while size > 4:
            block = nn.ModuleDict(
                {
                    "conv1": _EqualizedConv(width, width, 3),
                    "conv2": _EqualizedConv(width, width * 2, 3),
                    "skip": _EqualizedConv(width, width * 2, 1, bias=False),
                }
            )
            self.blocks.append(block)
            width, size = width * 2, size // 2
        self.conv = _EqualizedConv(width + bool(group), width, 3)
        self.dense = nn.Linear(width * 16, width)
        self.out = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.from_rgb.activated(x)
        for block in self.blocks:
            skip = block["skip"](_blur(x, (1, 1)), stride=2)
            x = block["conv1"].activated(x, padding=1)
            x = block["conv2"].activated(_blur(x, (2, 2)), stride=2, gain=math.sqrt(0.5))
            x = x + skip * math.sqrt(0.5)
        if self.group:
            x = torch.cat([x, self._deviation(x)], 1)
        x = self.conv.activated(x, padding=1)
        return self.out(F.leaky_relu(self.dense(x.flatten(1)), 0.2) * math.sqrt(2))

    def _deviation(self, x: Tensor) -> Tensor:
        groups = x.unflatten(0, (self.group, -1))
        deviation = (groups.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
        return deviation.repeat(self.group).view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])


def patchgan(width: int = 16, norm: Callable[[int], nn.Module] = nn.InstanceNorm2d) -> nn.Module:
    """PatchGAN (Isola et al., 2017)."""
    return nn.Sequential(
        nn.Conv2d(3, width, 4, 2, 1),
        nn.LeakyReLU(0.2, True),
        nn.Conv2d(width, width * 2, 4, 2, 1),
        norm(width * 2),
        nn.LeakyReLU(0.2, True),
        nn.Conv2d(width * 2, width * 4, 4, 1, 1),
        norm(width * 4),
        nn.LeakyReLU(0.2, True),
        nn.Conv2d(width * 4, 1, 4, 1, 1),
    )


def mixed_activations() -> nn.Module:
    """PReLU, max and adaptive pooling, reflection padding: the other rows of the allow-list."""
    return nn.Sequential(
        nn.ReflectionPad2d(1),
        nn.Conv2d(3, 8, 3),
        nn.PReLU(8),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1, padding_mode="replicate"),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(4),
        nn.Conv2d(16, 1, 4),
    )


class CriticCase(NamedTuple):
    """A critic, the shape of its samples, and FLOPs of a penalty step over those of a forward:
    stock autograd's, after the cut by hooks, and by the extension where that saves more, because it
    computes no weight gradient of constant filters."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    stock: float
    cut: float
    cut_natively: float | None = None


_IMAGES = (4, 3, 32, 32)
_SMALL = (4, 3, 16, 16)

CRITICS = {
    "dcgan": CriticCase(lambda: dcgan(8), _IMAGES, 5.997, 4.000),
    "mlp": CriticCase(multilayer_perceptron, (4, 3, 16, 16), 5.998, 3.999),
    "spectral_resnet": CriticCase(lambda: SpectralResNet(8, 16), _SMALL, 6.000, 4.000),
    "hifigan_period": CriticCase(HifiGanPeriod, (2, 1, 1024), 6.022, 4.027),
    "stylegan2": CriticCase(lambda: StyleGan2(8, 16), _SMALL, 5.864, 4.000, 3.864),
    "stylegan2_mbstd": CriticCase(lambda: StyleGan2(8, 16, group=4), _SMALL, 5.865, 5.405, 5.269),
    "patchgan_instance_norm": CriticCase(lambda: patchgan(8), _IMAGES, 5.943, 5.943),
    "patchgan_batch_norm": CriticCase(lambda: patchgan(8, nn.BatchNorm2d), _IMAGES, 5.943, 5.943),
    "mixed_activations": CriticCase(mixed_activations, _IMAGES, 5.999, 4.000),
}
