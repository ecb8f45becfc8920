"""Many small images as one picture, for the demo and the examples."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from matplotlib.axes import Axes
from torch import Tensor

GRID_COLUMNS = 8


def tile(images: Tensor) -> np.ndarray:
    """[N, 3, S, S] in [-1, 1] to one picture [rows * (S + 2), columns * (S + 2), 3] in [0, 1]."""
    count, channels, height, width = images.shape
    rows = count // GRID_COLUMNS
    framed = F.pad(images[: rows * GRID_COLUMNS], (1, 1, 1, 1), value=1.0)  # white lines between
    height, width = height + 2, width + 2
    tiles = framed.reshape(rows, GRID_COLUMNS, channels, height, width)
    picture = tiles.permute(0, 3, 1, 4, 2).reshape(rows * height, GRID_COLUMNS * width, channels)
    return ((picture + 1) / 2).clamp(0, 1).numpy()


def show(axis: Axes, images: Tensor) -> None:
    """With square pixels, whatever the shape of the panel and the user's matplotlibrc."""
    axis.imshow(tile(images), interpolation="nearest", aspect="equal")
