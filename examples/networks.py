"""Small networks from images to images, and critics of patches."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def _down(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 4, 2, 1), nn.InstanceNorm2d(outputs), nn.LeakyReLU(0.2)
    )


def _up(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Upsample(scale_factor=2),
        nn.Conv2d(inputs, outputs, 3, 1, 1),
        nn.InstanceNorm2d(outputs),
        nn.ReLU(),
    )


class Translator(nn.Module):
    """A U-Net of two levels: images [B, inputs, S, S] to images [B, 3, S, S] in [-1, 1]."""

    def __init__(self, inputs: int, width: int = 32) -> None:
        super().__init__()
        self.first, self.second = _down(inputs, width), _down(width, 2 * width)
        self.middle = _up(2 * width, width)
        self.last = nn.Sequential(_up(2 * width, width), nn.Conv2d(width, 3, 3, 1, 1), nn.Tanh())

    def forward(self, images: Tensor) -> Tensor:
        fine = self.first(images)
        coarse = self.middle(self.second(fine))
        return self.last(torch.cat([fine, coarse], 1))


def patch_critic(inputs: int, width: int = 32) -> nn.Sequential:
    """Images [B, inputs, S, S] to a logit for each patch [B, 1, S / 4, S / 4]."""
    return nn.Sequential(
        nn.Conv2d(inputs, width, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(2 * width, 1, 3, 1, 1),
    )


class ContentFeatures(nn.Module):
    """Feature maps to compare images by: fixed random filters, where published code takes VGG's.

    Nothing is downloaded for an example. Random filters see edges and colours, no objects.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inputs, outputs, 3, 2, 1), nn.ReLU())
            for inputs, outputs in ((3, width), (width, 2 * width))
        )
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            images = stage(images)
            maps.append(images)
        return maps
