"""A DCGAN-size pair (Radford et al., 2016), for images of 16, 32, 64 or 128 pixels."""

from __future__ import annotations

import itertools
import math

import torch
from torch import nn

LATENT_SIZE = 128
SIZES = (16, 32, 64, 128)


def _initialise(module: nn.Module) -> None:
    """The paper's N(0, 0.02)."""
    if isinstance(module, nn.ConvTranspose2d):
        nn.init.normal_(module.weight, std=0.02)


def _widths(size: int, width: int) -> list[int]:
    """Channels after each halving of the image down to 4x4."""
    return [width * 2**k for k in range(int(math.log2(size)) - 2)]


def build_generator(size: int, width: int) -> nn.Sequential:
    """Latents [B, LATENT_SIZE] to images [B, 3, size, size] in [-1, 1]."""
    channels = _widths(size, width)[::-1]
    layers: list[nn.Module] = [
        nn.Unflatten(1, (LATENT_SIZE, 1, 1)),
        nn.ConvTranspose2d(LATENT_SIZE, channels[0], 4, bias=False),
        nn.BatchNorm2d(channels[0]),
        nn.ReLU(),
    ]
    for before, after in itertools.pairwise(channels):
        layers += [
            nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
        ]
    layers += [nn.ConvTranspose2d(channels[-1], 3, 4, stride=2, padding=1), nn.Tanh()]
    return nn.Sequential(*layers).apply(_initialise)


def build_critic(size: int, width: int) -> nn.Sequential:
    """Images [B, 3, size, size] to logits [B].

    Without batch norm: a gradient penalty is per sample, and batch norm ties samples together.
    """
    channels = [3, *_widths(size, width)]
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(channels):
        layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
    layers += [nn.Conv2d(channels[-1], 1, 4), nn.Flatten(0)]
    return nn.Sequential(*layers)


def draw_latents(count: int, rng: torch.Generator) -> torch.Tensor:
    """[count, LATENT_SIZE]."""
    return torch.randn(count, LATENT_SIZE, generator=rng)
