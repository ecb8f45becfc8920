"""A list of segments as arguments of a kernel: the addresses of all their tensors in one launch.

Triton takes tuples, of tuples, of tensors: their addresses lie among the kernel's arguments. So
nothing is copied to the device and nothing waits, a CUDA graph keeps the addresses with the launch,
and Triton sees tensors, their dtypes and their alignment. ``segments.py`` is the kernel's side.

Triton compiles anew for an integer in a tuple that is 1, a multiple of 16, or wider than 32 bits,
and for no float: so whole numbers go as floats, below 2^24 in each, and a double in three parts.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from ganloss_fast.ops.triton.layout import program_counts

# What the arguments of a launch may take beside the list, and with it. CUDA 13 passes 32 KiB, and
# every driver that it runs on takes them.
OTHER_ARGUMENTS = 128
MOST_ARGUMENTS = 32_764 if (torch.version.cuda or "").partition(".")[0] == "13" else 4096

Number = float | tuple[float, float, float]


class Segment(NamedTuple):
    """One segment, with its operands in one memory order, and what a kernel takes beside them."""

    position: int  # in the list
    term: triton.JITFunction
    first: float
    second: float
    scale: float
    a: Tensor
    b: Tensor | None  # 0-d, or in the layout of a
    weight: Tensor | None  # in the layout of a, in any dtype
    va: Tensor | None = None
    vb: Tensor | None = None
    to_a: Tensor | None = None
    to_b: Tensor | None = None

    @property
    def b_is_scalar(self) -> bool:
        return self.b is not None and self.b.dim() == 0

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        return self[5:]


class Kind(NamedTuple):
    """What the entries of a group have in common: the kernel's code for them is of one kind."""

    term: triton.JITFunction
    b_is_scalar: bool


class Entry(NamedTuple):
    """A segment as a kernel takes it: every field an argument, and a None no argument at all."""

    a: Tensor
    b: Tensor | None
    weight: Tensor | None
    va: Tensor | None
    vb: Tensor | None
    to_a: Tensor | None
    to_b: Tensor | None
    position: float
    first_program: float
    programs: float
    count: tuple[float, float]
    first: Number
    second: Number
    scale: Number


class Launch(NamedTuple):
    """A launch for a list, or for as much of it as its arguments hold."""

    groups: tuple[tuple[Entry, ...], ...]
    kinds: tuple[Kind, ...]  # of the groups
    segments: int
    programs: int


# ---- numbers -------------------------------------------------------------------------------------


def digits(count: int) -> tuple[float, float]:
    """A count below 2^48."""
    return float(count >> 24), float(count & 0xFFFFFF)


def parts_of_double(x: float) -> tuple[float, float, float]:
    """Its 64 bits."""
    (bits,) = struct.unpack("=Q", struct.pack("=d", x))
    return float(bits >> 48), float(bits >> 24 & 0xFFFFFF), float(bits & 0xFFFFFF)


# ---- launches ------------------------------------------------------------------------------------


class Planned(NamedTuple):
    segment: Segment
    count: int  # of elements
    programs: int


def is_aligned(tensors: Iterable[Tensor | None]) -> bool:
    """Whether wide loads may serve them all. A matter of speed: Triton looks at the addresses."""
    return all(
        t is None or t.storage_offset() == 0 or t.storage_offset() * t.element_size() % 16 == 0
        for t in tensors
    )


def by_kind(planned: Iterable[Planned]) -> Iterable[list[Planned]]:
    """Segments that one piece of code serves. A misaligned one takes narrow loads, and would bring
    its whole group to them."""
    groups: dict[Any, list[Planned]] = {}
    for plan in planned:
        tensors = plan.segment.tensors
        dtypes = [None if t is None else t.dtype for t in tensors]
        kind = (plan.segment.term, plan.segment.b_is_scalar, is_aligned(tensors), *dtypes)
        groups.setdefault(kind, []).append(plan)
    return groups.values()


def cut(planned: Iterable[Planned], bytes_of_numbers: int) -> Iterator[list[Planned]]:
    """The list, cut where the arguments of a launch are full."""
    part: list[Planned] = []
    left = MOST_ARGUMENTS - OTHER_ARGUMENTS
    for plan in planned:
        pointers = sum(t is not None for t in plan.segment.tensors)
        needed = 8 * pointers + bytes_of_numbers
        if left < needed:
            yield part
            part, left = [], MOST_ARGUMENTS - OTHER_ARGUMENTS
        part.append(plan)
        left -= needed
    yield part


def launches(segments: Sequence[Segment], dtype: torch.dtype) -> Iterator[Launch]:
    """Launches for a list whose results are of a dtype: one, where the arguments hold it."""
    is_double = dtype == torch.float64
    number: Callable[[float], Number] = parts_of_double if is_double else float
    counts = [segment.a.numel() for segment in segments]
    planned = map(Planned, segments, counts, program_counts(counts))
    for part in cut(planned, 56 if is_double else 32):
        groups, kinds, programs = [], [], 0
        for group in by_kind(part):
            entries = []
            for segment, count, programs_of_segment in group:
                entries.append(
                    Entry(
                        *segment.tensors,
                        float(segment.position),
                        float(programs),
                        float(programs_of_segment),
                        digits(count),
                        number(segment.first),
                        number(segment.second),
                        number(segment.scale),
                    )
                )
                programs += programs_of_segment
            groups.append(tuple(entries))
            kinds.append(Kind(segment.term, segment.b_is_scalar))
        yield Launch(tuple(groups), tuple(kinds), len(part), programs)
