"""Blurs of image codebases: a filter along rows and one along columns."""

from __future__ import annotations

import torch
from torch import Tensor


def separably_filtered(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Every channel of [B, C, H, W] under the weights ``rows`` [odd], from row to row, and
    ``columns`` [odd], normalised here, with zeros around the image."""
    maps = images.flatten(0, 1).unsqueeze(1)  # [B C, 1, H, W]
    for weights, shape in ((rows, (1, 1, -1, 1)), (columns, (1, 1, 1, -1))):
        kernel = (weights / weights.sum()).to(images.dtype).view(shape)
        maps = torch.nn.functional.conv2d(maps, kernel, padding="same")
    return maps.view_as(images)
