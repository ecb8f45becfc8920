"""The segments of a launch, in the kernel: which is a program's own, and the sums of its programs.

``groups`` are the arguments that ``segment_arguments.py`` makes of a list: tuples of entries of one
kind, in the order of their programs. Arguments cannot be indexed by the number of a program, so an
entry is selected field by field, once in a program: about 14 instructions for each entry.
"""

import triton
import triton.language as tl

from ganloss_fast.ops.triton.reduction import (
    numbers_of,
    store_partial,
    sum_numbers,
    take_ticket,
    tickets_behind,
)

# ---- arguments -----------------------------------------------------------------------------------


@triton.jit
def whole(number):
    """A float argument that holds a whole number."""
    return tl.full((), number, tl.float32).to(tl.int32)


@triton.jit
def whole_of_digits(high, low):
    """high 2^24 + low."""
    return (whole(high).to(tl.int64) << 24) + whole(low)


@triton.jit
def as_number(argument, L: tl.constexpr):
    """A number as ``segment_arguments.number`` passes it: one float, or three parts of a double."""
    if L == tl.float64:
        bits = whole(argument[0]).to(tl.int64) << 48
        bits += whole_of_digits(argument[1], argument[2])
        return bits.to(tl.float64, bitcast=True)
    else:
        return tl.full((), argument, L)


@triton.jit
def count_of(segment):
    return whole_of_digits(segment.count[0], segment.count[1])


# ---- the segment of a program --------------------------------------------------------------------


@triton.jit
def is_in_group(groups, g: tl.constexpr):
    """Whether this program works on a segment of groups[g]."""
    is_in = tl.full((), True, tl.int1)
    if g > 0:
        is_in &= tl.program_id(0) >= groups[g][0].first_program
    if g + 1 < len(groups):
        is_in &= tl.program_id(0) < groups[g + 1][0].first_program
    return is_in


@triton.jit
def segment_of_program(group):
    found = group[0]
    for k in tl.static_range(1, len(group)):
        if tl.program_id(0) >= group[k].first_program:
            found = group[k]
    return found


@triton.jit
def first_tile_of(segment):
    """The first tile of this program, in 64 bits: so are all offsets that are made from it."""
    return (tl.program_id(0) - whole(segment.first_program)).to(tl.int64)


# ---- sums ----------------------------------------------------------------------------------------


@triton.jit
def sums_over_programs(
    sums,  # a tuple of numbers
    segment,
    workspace,  # int32, see reduction.py, or None: the segment has one program
    size,  # of the list
    SUMS: tl.constexpr,  # the most sums that a segment of the launch has
    BLOCK: tl.constexpr,
):
    """(whether this program is the last of its segment, the sums over those programs if so)

    The workspace: partials [SUMS, programs], shares [size]; a ticket for the list and [size]
    tickets for the segments.
    """
    programs = whole(segment.programs)
    is_last = programs > 0
    if workspace is not None:
        if programs > 1:
            partials = numbers_of(workspace, sums[0].dtype)
            tickets = tickets_behind(workspace, SUMS * tl.num_programs(0) + size)
            for k in tl.static_range(len(sums)):
                store_partial(partials, k, sums[k])
            is_last = take_ticket(tickets + 1 + whole(segment.position), programs)
            if is_last:
                first = partials + whole(segment.first_program)
                added = ()
                for k in tl.static_range(len(sums)):
                    row = first + k * tl.num_programs(0)
                    added = added + (sum_numbers(row, programs, BLOCK),)  # noqa: RUF005
                sums = added
    return is_last, sums


@triton.jit
def add_to_total(
    share,
    total,  # []
    follows,  # on another launch for the same list, of which the total is kept
    segment,
    workspace,  # int32, see sums_over_programs
    size,
    SUMS: tl.constexpr,
    SEGMENTS: tl.constexpr,  # of the launch
    BLOCK: tl.constexpr,
):
    """total += the shares of all segments of the launch, by the last of them to be done."""
    if SEGMENTS == 1:
        before = tl.load(total, mask=follows > 0, other=0.0)
        tl.store(total, before + share)
    else:
        shares = numbers_of(workspace, share.dtype) + SUMS * tl.num_programs(0)
        tl.store(shares + whole(segment.position), share)
        ticket = tickets_behind(workspace, SUMS * tl.num_programs(0) + size)
        if take_ticket(ticket, SEGMENTS):
            before = tl.load(total, mask=follows > 0, other=0.0)
            tl.store(total, before + sum_numbers(shares, size, BLOCK))
