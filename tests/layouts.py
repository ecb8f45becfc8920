"""Memory layouts that a tensor of one shape can have, as data for parametrized tests."""

from __future__ import annotations

import torch
from oracle import draw
from torch import Tensor

SHAPE = (4, 6, 5, 7)


def contiguous(dtype: torch.dtype) -> Tensor:
    return draw(*SHAPE, dtype=dtype)


def channels_last(dtype: torch.dtype) -> Tensor:
    return contiguous(dtype).to(memory_format=torch.channels_last)


def transposed(dtype: torch.dtype) -> Tensor:
    return draw(*SHAPE[::-1], dtype=dtype).permute(3, 2, 1, 0)


def sliced(dtype: torch.dtype) -> Tensor:
    return draw(SHAPE[0], 2 * SHAPE[1], SHAPE[2], SHAPE[3] + 3, dtype=dtype)[:, ::2, :, 2:-1]


def expanded(dtype: torch.dtype) -> Tensor:
    return draw(SHAPE[0], 1, SHAPE[2], 1, dtype=dtype).expand(SHAPE)


def misaligned(dtype: torch.dtype) -> Tensor:
    return draw(4 * 6 * 5 * 7 + 1, dtype=dtype)[1:].view(SHAPE)


LAYOUTS = {
    layout.__name__: layout
    for layout in (contiguous, channels_last, transposed, sliced, expanded, misaligned)
}
DENSE_LAYOUTS = ("contiguous", "channels_last", "transposed", "misaligned")
