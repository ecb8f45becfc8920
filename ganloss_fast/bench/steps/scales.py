"""Discriminators by scale, of which each layer's maps are matched: pix2pixHD's, SPADE's."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

Maps = list[list[Tensor]]


class Scale(nn.ModuleList):
    """Layers, one after the other; gives the maps of all, the logits last."""

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for layer in self:
            x = layer(x)
            maps.append(x)
        return maps


class Scales(nn.ModuleList):
    """Each sees the images at half the resolution of the one before."""

    def forward(self, x: Tensor) -> Maps:
        found = []
        for scale in self:
            found.append(scale(x))
            x = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
        return found
