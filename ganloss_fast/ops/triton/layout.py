"""What the launchers share: dtypes, the geometry of a launch, memory layout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from ganloss_fast.ops.triton.reduction import MAX_PROGRAMS

COMPUTE_DTYPES = {
    torch.float16: tl.float32,
    torch.bfloat16: tl.float32,
    torch.float32: tl.float32,
    torch.float64: tl.float64,
}
ACCUMULATORS = {tl.float32: torch.float32, tl.float64: torch.float64}


def accumulator_of(batch: Tensor) -> torch.dtype:
    return ACCUMULATORS[COMPUTE_DTYPES[batch.dtype]]


# Elements of a tile: two 16-byte loads for each of 128 threads in float32, one in half. With 2048
# the statistics' accumulators of a half kernel would take 168 registers, three blocks to a
# multiprocessor.
BLOCK = 1024
# A warp has 32 threads, on AMD 64: 128 threads either way.
NUM_WARPS = 4 if torch.version.hip is None else 2


# Triton's own cdiv and next_power_of_2 take 2 to 4 microseconds outside of a kernel.


def ceil_div(x: int, y: int) -> int:
    return -(-x // y)


def next_power_of_2(x: int) -> int:
    return 1 << (x - 1).bit_length()


def program_count(elements: int) -> int:
    """Programs for a run of elements: one for each tile, up to MAX_PROGRAMS, and never none."""
    return max(1, min(MAX_PROGRAMS, ceil_div(elements, BLOCK)))


def program_counts(runs: Sequence[int]) -> list[int]:
    """Programs for each of several runs of one launch, by their number of elements: MAX_PROGRAMS
    for all of them, and a few more where that does not divide."""
    tiles = [max(1, ceil_div(elements, BLOCK)) for elements in runs]
    total = sum(tiles)
    if total <= MAX_PROGRAMS:
        return tiles
    return [ceil_div(count * MAX_PROGRAMS, total) for count in tiles]


def zeroed_workspace(numbers: int, tickets: int, device: torch.device) -> Tensor:
    """See reduction.py.

    Of one launch: those of another call, perhaps on another stream, may not share it.
    """
    return torch.zeros(2 * numbers + tickets, dtype=torch.int32, device=device)


def workspace_for(programs: int, device: torch.device) -> Tensor | None:
    """Where programs add up a number each; None for a single one, which needs nothing."""
    return zeroed_workspace(programs, 1, device) if programs > 1 else None


def rows_of(batch: Tensor) -> tuple[int, int]:
    """(samples, elements of each)"""
    samples = batch.shape[0]
    return samples, batch.numel() // max(1, samples)


class RowGeometry(NamedTuple):
    """How a batch of rows is cut for the kernels of rows.py."""

    batch: int
    length: int
    rows: int  # rows that a program takes; 1 where a row is long
    columns: int  # elements of a row that a tile takes
    splits: int  # programs that share a row
    programs: int


def row_geometry(batch: int, length: int) -> RowGeometry:
    if length <= BLOCK // 2 or batch == 0:
        columns = next_power_of_2(min(max(1, length), BLOCK // 2))
        rows = BLOCK // columns
        return RowGeometry(batch, length, rows, columns, 1, max(1, ceil_div(batch, rows)))
    splits = max(1, min(ceil_div(length, BLOCK), MAX_PROGRAMS // batch))
    return RowGeometry(batch, length, 1, BLOCK, splits, batch * splits)


def elementwise_geometry(batch: int, length: int) -> RowGeometry:
    """For kernels that sum nothing: short rows are taken end to end, a tile to a program."""
    geometry = row_geometry(batch, length)
    if geometry.rows == 1:
        return geometry
    return geometry._replace(columns=BLOCK, programs=ceil_div(batch * length, BLOCK))


def is_dense(tensor: Tensor) -> bool:
    """Whether the elements fill one block of memory, in any order of the dimensions."""
    if tensor.is_contiguous():
        return True
    expected = 1
    dimensions = [(k, n) for k, n in zip(tensor.stride(), tensor.shape) if n != 1]
    for stride, size in sorted(dimensions):
        if stride != expected:
            return False
        expected *= size
    return True


def dense(tensor: Tensor) -> Tensor:
    """A tensor whose elements fill one block of memory: itself, or a copy."""
    tensor = tensor.resolve_neg()
    if is_dense(tensor):
        return tensor
    return torch.empty_like(tensor).copy_(tensor)


def dense_by_sample(tensor: Tensor) -> Tensor:
    """Dense, and every sample is one block of memory."""
    tensor = tensor.resolve_neg()
    samples = tensor.shape[0]
    by_sample = samples <= 1 or tensor.stride(0) == tensor.numel() // samples
    return tensor if by_sample and is_dense(tensor) else tensor.contiguous()


def in_layout_of(tensor: Tensor, like: Tensor) -> Tensor:
    """The elements of ``tensor`` in the memory order of ``like``: itself, or a copy."""
    tensor = tensor.resolve_neg()
    if tensor.stride() == like.stride():
        return tensor
    if all(n < 2 or x == y for n, x, y in zip(like.shape, tensor.stride(), like.stride())):
        return tensor
    out = torch.empty_strided(like.shape, like.stride(), dtype=tensor.dtype, device=tensor.device)
    return out.copy_(tensor)


def read_one_by_one(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A small tensor as a kernel indexes it: contiguous, in the dtype it computes in."""
    return tensor.resolve_neg().to(dtype).contiguous()


def restore_layout(result: Tensor, used: Tensor, original: Tensor) -> Tensor:
    """The result of a kernel that ran on ``used``, a copy of ``original`` or itself, with the
    strides of ``empty_like(original)``: what the fake kernels promise."""
    if used is original:
        return result
    return torch.empty_like(original).copy_(result)
