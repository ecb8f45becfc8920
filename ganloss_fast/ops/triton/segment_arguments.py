"""A list of segments as arguments of a kernel: the addresses of all their tensors in one launch.

Triton takes tuples of tensors: their addresses lie among the kernel's arguments. So nothing is
copied to the device and nothing waits, a CUDA graph keeps the addresses with the launch, and Triton
sees the tensors, with their dtypes and alignment. ``segments.py`` is the kernel's side.

Triton compiles anew for an integer in a tuple that is 1, a multiple of 16, or wider than 32 bits,
and for no float: so whole numbers go as floats, below 2^24 in each, and a double in three parts.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from ganloss_fast.ops.terms import TERM_NAMES
from ganloss_fast.ops.triton.layout import program_counts
from ganloss_fast.ops.triton.terms import TERM_FUNCTIONS

# What the arguments of a launch may take beside the list, and with it. CUDA 13 passes 32 KiB, and
# every driver that it runs on takes them.
OTHER_ARGUMENTS = 128
MOST_ARGUMENTS = 32_764 if (torch.version.cuda or "").partition(".")[0] == "13" else 4096

TERMS = [TERM_FUNCTIONS[name] for name in TERM_NAMES]

Tensors = Sequence[Tensor | None]
Number = float | tuple[float, float, float]


class Operands(NamedTuple):
    """The tensors of S segments, each a list [S]; None for a list that is empty all the way."""

    a: Sequence[Tensor]
    b: Tensors | None  # 0-d, or in the layout of a
    weight: Tensors | None  # in the layout of a, in any dtype
    va: Tensors | None = None
    vb: Tensors | None = None
    to_a: Tensors | None = None
    to_b: Tensors | None = None


class Numbers(NamedTuple):
    """Of S segments, each a list [S]."""

    position: Sequence[int]  # in the list of the call
    term: Sequence[int]  # codes
    first: Sequence[float]
    second: Sequence[float]
    scale: Sequence[float]


class Kind(NamedTuple):
    """What the segments of a group have in common, beside the dtypes of their tensors."""

    term: Any  # the function in terms.py
    b_is_scalar: bool


class Group(NamedTuple):
    """Segments that one piece of code serves: tuples of arguments, with an element for each segment
    or with one for all of them. An operand that they do not have is None."""

    a: tuple[Tensor, ...]
    b: tuple[Tensor, ...] | None
    weight: tuple[Tensor, ...] | None
    va: tuple[Tensor, ...] | None
    vb: tuple[Tensor, ...] | None
    to_a: tuple[Tensor, ...] | None
    to_b: tuple[Tensor, ...] | None
    position: tuple[float, ...]
    bounds: tuple[float, ...]  # the first program of each, and the one behind the last
    count_high: tuple[float, ...]  # the number of elements is high 2^24 + low
    count_low: tuple[float, ...]
    first: tuple[Number, ...]
    second: tuple[Number, ...]
    scale: tuple[Number, ...]


class Launch(NamedTuple):
    """A launch for a list, or for as much of it as its arguments hold."""

    groups: tuple[Group, ...]
    kinds: tuple[Kind, ...]  # of the groups
    segments: int
    programs: int


def parts_of_double(x: float) -> tuple[float, float, float]:
    """Its 64 bits."""
    (bits,) = struct.unpack("=Q", struct.pack("=d", x))
    return float(bits >> 48), float(bits >> 24 & 0xFFFFFF), float(bits & 0xFFFFFF)


def common(column: Sequence[Any]) -> tuple[Any, ...]:
    """One element where all are equal: an argument for all segments."""
    return tuple(column[:1] if column.count(column[0]) == len(column) else column)


def floats(column: Sequence[int]) -> tuple[float, ...]:
    return tuple(map(float, column))


def is_misaligned(tensor: Tensor | None) -> bool:
    """A matter of speed alone: Triton looks at the addresses."""
    return tensor is not None and tensor.storage_offset() * tensor.element_size() % 16 != 0


def kinds_of(operands: Operands, terms: Sequence[int]) -> list[tuple[Any, ...]]:
    """Of every segment, what makes its code: equal for the segments of a group.

    A misaligned operand takes narrow loads and would bring its group to them.
    """
    columns: list[Sequence[Any]] = [terms]
    for column in operands:
        if column is not None:
            columns.append([t if t is None else (t.dtype, is_misaligned(t)) for t in column])
    if operands.b is not None:
        columns.append([b is not None and b.dim() == 0 for b in operands.b])
    return list(zip(*columns))


def group_of(
    operands: Operands,
    numbers: Numbers,
    counts: Sequence[int],
    bounds: Sequence[int],
    number: Callable[[float], Number],
) -> Group:
    """Segments of one kind."""
    tensors = [None if t is None or t[0] is None else tuple(t) for t in operands]
    return Group(
        *tensors,
        floats(numbers.position),
        floats(bounds),
        common([float(count >> 24) for count in counts]),
        tuple([float(count & 0xFFFFFF) for count in counts]),
        *[common([number(x) for x in column]) for column in numbers[2:]],
    )


Columns = TypeVar("Columns", Operands, Numbers)


def chosen(columns: Columns, indices: Sequence[int]) -> Columns:
    """The lists with some of their elements."""
    return columns._make(
        None if column is None else [column[k] for k in indices] for column in columns
    )


def launch_of(
    operands: Operands, numbers: Numbers, programs: Sequence[int], is_double: bool
) -> Launch:
    """One launch for all of these segments."""
    number: Callable[[float], Number] = parts_of_double if is_double else float
    counts = [a.numel() for a in operands.a]
    members: dict[Any, list[int]] = {}
    for k, kind in enumerate(kinds_of(operands, numbers.term)):
        members.setdefault(kind, []).append(k)
    groups, kinds, begin = [], [], 0
    for indices in members.values():
        bounds = list(accumulate([programs[k] for k in indices], initial=begin))
        begin = bounds[-1]
        b = None if operands.b is None else operands.b[indices[0]]
        kinds.append(Kind(TERMS[numbers.term[indices[0]]], b is not None and b.dim() == 0))
        if len(members) > 1:
            own = chosen(operands, indices), chosen(numbers, indices), [counts[k] for k in indices]
        else:
            own = operands, numbers, counts
        groups.append(group_of(*own, bounds, number))
    return Launch(tuple(groups), tuple(kinds), len(counts), begin)


def launches(operands: Operands, numbers: Numbers, dtype: torch.dtype) -> Iterator[Launch]:
    """For segments whose results are of a dtype: one launch, where its arguments hold them all."""
    is_double = dtype == torch.float64
    programs = program_counts([a.numel() for a in operands.a])
    pointers = sum(column is not None for column in operands)
    most = (MOST_ARGUMENTS - OTHER_ARGUMENTS) // (8 * pointers + (56 if is_double else 32))
    if len(programs) <= most:
        yield launch_of(operands, numbers, programs, is_double)
        return
    for start in range(0, len(programs), most):
        part = range(start, min(start + most, len(programs)))
        yield launch_of(
            chosen(operands, part), chosen(numbers, part), [programs[k] for k in part], is_double
        )
