"""The discriminators of HiFi-GAN, VITS and BigVGAN as published, written out in plain PyTorch."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

CONFIGURATION = SimpleNamespace(
    mpd_reshapes=[2, 3],
    use_spectral_norm=False,
    discriminator_channel_mult=0.0625,
    resolutions=[(32, 8, 16), (16, 4, 16), (8, 4, 8)],
)


def old_weight_norm(layer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(layer)


class PlainPart(nn.Module):
    """Convolutions given as (kind, arguments), all with one norm."""

    def __init__(self, layers, last, norm=old_weight_norm, prepare=lambda x: x):
        super().__init__()
        self.convs = nn.ModuleList([norm(kind(*a, **k)) for kind, a, k in layers])
        kind, a, k = last
        self.conv_post = norm(kind(*a, **k))
        self.prepare = prepare

    def forward(self, x):
        maps, x = [], self.prepare(x)
        for layer in self.convs:
            x = F.leaky_relu(layer(x), 0.1)
            maps.append(x)
        x = self.conv_post(x)
        maps.append(x)
        return torch.flatten(x, 1, -1), maps


def folded(period):
    def fold(x):
        b, c, t = x.shape
        if t % period != 0:
            x = F.pad(x, (0, period - t % period), "reflect")
        return x.view(b, c, x.shape[2] // period, period)

    return fold


def plain_period(period, norm=old_weight_norm, multiplier=1.0):
    widths = [1, *(int(w * multiplier) for w in (32, 128, 512, 1024, 1024))]
    layers = [
        (nn.Conv2d, (a, b, (5, 1), (s, 1)), {"padding": (2, 0)})
        for a, b, s in zip(widths, widths[1:], (3, 3, 3, 3, 1))
    ]
    last = (nn.Conv2d, (widths[-1], 1, (3, 1), 1), {"padding": (1, 0)})
    return PlainPart(layers, last, norm, folded(period))


def plain_scale(rows, norm=old_weight_norm):
    layers = [
        (nn.Conv1d, (a, b, size, step), {"groups": groups, "padding": padding})
        for a, b, size, step, groups, padding in rows
    ]
    return PlainPart(layers, (nn.Conv1d, (rows[-1][1], 1, 3, 1), {"padding": 1}), norm)


HIFIGAN = [
    (1, 128, 15, 1, 1, 7),
    (128, 128, 41, 2, 4, 20),
    (128, 256, 41, 2, 16, 20),
    (256, 512, 41, 4, 16, 20),
    (512, 1024, 41, 4, 16, 20),
    (1024, 1024, 41, 1, 16, 20),
    (1024, 1024, 5, 1, 1, 2),
]
VITS = [
    (1, 16, 15, 1, 1, 7),
    (16, 64, 41, 4, 4, 20),
    (64, 256, 41, 4, 16, 20),
    (256, 1024, 41, 4, 64, 20),
    (1024, 1024, 41, 4, 256, 20),
    (1024, 1024, 5, 1, 1, 2),
]


def plain_resolution(size, hop, window, width):
    def magnitudes(x):
        x = F.pad(x, (int((size - hop) / 2), int((size - hop) / 2)), mode="reflect").squeeze(1)
        frames = x.unfold(1, size, hop)
        left = (size - window) // 2
        kept = F.pad(torch.ones(window, dtype=x.dtype), (left, size - window - left))
        spectrum = torch.fft.rfft(frames * kept)
        return spectrum.abs().transpose(1, 2).unsqueeze(1)

    layers = [
        (nn.Conv2d, (1, width, (3, 9)), {"padding": (1, 4)}),
        *[(nn.Conv2d, (width, width, (3, 9)), {"stride": (1, 2), "padding": (1, 4)})] * 3,
        (nn.Conv2d, (width, width, (3, 3)), {"padding": (1, 1)}),
    ]
    last = (nn.Conv2d, (width, 1, (3, 3)), {"padding": (1, 1)})
    return PlainPart(layers, last, prepare=magnitudes)
