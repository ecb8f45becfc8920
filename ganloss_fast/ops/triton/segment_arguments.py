"""A list of segments as arguments of a kernel: the addresses of all their tensors in one launch.

Triton takes tuples of tensors: their addresses lie among the kernel's arguments. So nothing is
copied to the device and nothing waits, a CUDA graph keeps the addresses with the launch, and Triton
sees the tensors, with their dtypes and alignment. ``segments.py`` is the kernel's side.

Triton compiles anew for an integer in a tuple that is 1, a multiple of 16, or wider than 32 bits,
and for no float: so whole numbers go as floats, below 2^24 in each, and a double in three parts.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ganloss_fast.ops.terms import TERM_NAMES
from ganloss_fast.ops.triton.layout import ceil_div
from ganloss_fast.ops.triton.terms import TERM_FUNCTIONS

# A program picks its segment among all of a launch: with more of them it takes too long, and too
# many registers.
MOST_SEGMENTS = 64
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
    elements: Sequence[int]
    programs: Sequence[int]
    term: Sequence[int]  # codes
    first: Sequence[float]
    second: Sequence[float]
    scale: Sequence[float]


Columns = tuple[Operands, Numbers]


class Group(NamedTuple):
    """Segments that one piece of code serves: tuples of arguments, with an element for each segment
    or with one for all of them. An operand that they do not have is (): Triton 3.6 takes no None
    in a tuple."""

    a: tuple[Tensor, ...]
    b: tuple[Tensor, ...]
    weight: tuple[Tensor, ...]
    va: tuple[Tensor, ...]
    vb: tuple[Tensor, ...]
    to_a: tuple[Tensor, ...]
    to_b: tuple[Tensor, ...]
    position: tuple[float, ...]
    bounds: tuple[float, ...]  # the first program of each, and the one behind the last
    count_high: tuple[float, ...]  # the elements are high 2^24 + low
    count_low: tuple[float, ...]
    numbers: tuple[tuple[Number, Number, Number], ...]  # first, second and scale


class Launch(NamedTuple):
    """A launch for a list, or for as much of it as its arguments hold."""

    groups: tuple[Group, ...]
    terms: tuple[Any, ...]  # of each group, the function in terms.py
    b_is_scalar: tuple[bool, ...]  # of each group
    narrow: tuple[bool, ...]  # of each group, whether an operand is misaligned
    segments: int
    programs: int


def parts_of_double(x: float) -> tuple[float, float, float]:
    """Its 64 bits."""
    (bits,) = struct.unpack("=Q", struct.pack("=d", x))
    return float(bits >> 48), float(bits >> 24 & 0xFFFFFF), float(bits & 0xFFFFFF)


def common(column: tuple[Any, ...]) -> tuple[Any, ...]:
    """One element where all are equal: an argument for all segments."""
    return column[:1] if column.count(column[0]) == len(column) else column


def is_misaligned(tensor: Tensor) -> bool:
    """A matter of speed alone: whether an access may be wide is Triton's to decide, by address."""
    offset = tensor.storage_offset()
    return bool(offset and tensor.dim() > 0 and offset * tensor.element_size() % 16)


def members_by_kind(operands: Operands, terms: Sequence[int]) -> list[list[int]]:
    """The segments of every group: term, dtypes and operands make its code, and so does alignment,
    or one narrow operand would make the others narrow."""
    columns: list[Iterable[Any]] = [terms]
    for column in operands:
        if column is not None:
            columns.append([t is not None and (t.dtype, is_misaligned(t)) for t in column])
    if operands.b is not None:
        columns.append([b is not None and b.dim() == 0 for b in operands.b])
    members: dict[Any, list[int]] = {}
    for s, kind in enumerate(zip(*columns)):
        members.setdefault(kind, []).append(s)
    return list(members.values())


def group_of(operands: Operands, numbers: Numbers, bounds: Iterable[int], is_double: bool) -> Group:
    """Segments of one kind as arguments."""
    number: Callable[[float], Number] = parts_of_double if is_double else float
    return Group._make(
        (
            *[() if t is None or t[0] is None else tuple(t) for t in operands],
            tuple(map(float, numbers.position)),
            tuple(map(float, bounds)),
            common(tuple([float(count >> 24) for count in numbers.elements])),
            tuple([float(count & 0xFFFFFF) for count in numbers.elements]),
            common(tuple(zip(*[map(number, column) for column in numbers[-3:]]))),
        )
    )


def chosen(operands: Operands, numbers: Numbers, members: Sequence[int]) -> Columns:
    """Some of the segments."""
    return (
        Operands._make(None if t is None else [t[s] for s in members] for t in operands),
        Numbers._make([column[s] for s in members] for column in numbers),
    )


def launch_of(operands: Operands, numbers: Numbers, is_double: bool) -> Launch:
    """One launch for all of these segments."""
    size, begin = len(numbers.term), 0
    groups, terms, b_is_scalar, narrow = [], [], [], []
    for members in members_by_kind(operands, numbers.term):
        own = (operands, numbers) if len(members) == size else chosen(operands, numbers, members)
        bounds = [*accumulate(own[1].programs, initial=begin)]
        begin = bounds[-1]
        group = group_of(*own, bounds, is_double)
        groups.append(group)
        terms.append(TERMS[own[1].term[0]])
        b_is_scalar.append(group.b != () and group.b[0].dim() == 0)
        narrow.append(any(is_misaligned(t[0]) for t in group[:7] if t))
    of_groups = tuple(groups), tuple(terms), tuple(b_is_scalar), tuple(narrow)
    return Launch(*of_groups, size, begin)


def launch_of_one(operands: Operands, numbers: Numbers, is_double: bool) -> Launch:
    """What launch_of makes of a single segment, in a third of the time: most calls are of one."""
    number: Callable[[float], Number] = parts_of_double if is_double else float
    (count,), (programs,) = numbers.elements, numbers.programs
    tensors = [() if t is None or t[0] is None else (t[0],) for t in operands]
    group = Group._make(
        (
            *tensors,
            (float(numbers.position[0]),),
            (0.0, float(programs)),
            (float(count >> 24),),
            (float(count & 0xFFFFFF),),
            ((number(numbers.first[0]), number(numbers.second[0]), number(numbers.scale[0])),),
        )
    )
    b_is_scalar = group.b != () and group.b[0].dim() == 0
    narrow = any(is_misaligned(t[0]) for t in tensors if t)
    return Launch((group,), (TERMS[numbers.term[0]],), (b_is_scalar,), (narrow,), 1, programs)


def launches(operands: Operands, numbers: Numbers, dtype: torch.dtype) -> list[Launch]:
    """For segments whose results are of a dtype: one launch, where it can hold them all."""
    is_double, size = dtype == torch.float64, len(numbers.term)
    if size == 1:
        return [launch_of_one(operands, numbers, is_double)]
    tensors = len([column for column in operands if column is not None])
    room = (MOST_ARGUMENTS - OTHER_ARGUMENTS) // (8 * tensors + (56 if is_double else 32))
    most = min(MOST_SEGMENTS, room)
    if size <= most:
        return [launch_of(operands, numbers, is_double)]
    part = ceil_div(size, ceil_div(size, most))
    parts = [range(size)[start : start + part] for start in range(0, size, part)]
    return [launch_of(*chosen(operands, numbers, own), is_double) for own in parts]
