"""The segments of a launch, in the kernel: which is a program's own, and the sums of its programs.

``groups`` are the arguments that ``segment_arguments.py`` makes of a list. Arguments cannot be
indexed by the number of a program, so what belongs to its segment is picked by comparisons: for
each segment of the group, a few instructions once in a program.
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
from ganloss_fast.ops.triton.tiles import load_tile, store_tile

# ---- arguments -----------------------------------------------------------------------------------


@triton.jit
def whole(number):
    """A float argument that holds a whole number."""
    return tl.full((), number, tl.float32).to(tl.int32)


@triton.jit
def as_number(argument, L: tl.constexpr):
    """A number as ``segment_arguments.py`` passes it: a float, or the three parts of a double."""
    if L.is_fp64():
        bits = whole(argument[0]).to(tl.int64) << 48
        bits += (whole(argument[1]).to(tl.int64) << 24) + whole(argument[2])
        return bits.to(tl.float64, bitcast=True)
    else:
        return tl.full((), argument, L)


# ---- the segment of a program --------------------------------------------------------------------


@triton.jit
def is_in_group(groups, g: tl.constexpr):
    """Whether this program works on a segment of groups[g]."""
    if len(groups) == 1:
        return tl.full((), True, tl.int1)
    else:
        bounds = groups[g].bounds
        return (tl.program_id(0) >= bounds[0]) & (tl.program_id(0) < bounds[len(bounds) - 1])


@triton.jit
def bounds_passed(group):
    """[segments - 1]: whether this program is one of the second segment or a later one, and so on.
    Compared once: in the interpreter a comparison takes long."""
    passed = ()
    for k in tl.static_range(1, len(group.bounds) - 1):
        passed = passed + (tl.program_id(0) >= group.bounds[k],)  # noqa: RUF005
    return passed


@triton.jit
def pick(column, passed):
    """Of a column of arguments: what belongs to the segment of this program. None, of no column."""
    if len(column) == 0:
        found = None
    else:
        found = column[0]
        for k in tl.static_range(1, len(column)):
            if passed[k - 1]:
                found = column[k]
    return found


@triton.jit
def pick_programs(bounds, passed):
    """(the first program of the segment, the number of its programs)"""
    begin = bounds[0]
    end = bounds[1]
    for k in tl.static_range(1, len(bounds) - 1):
        if passed[k - 1]:
            begin = bounds[k]
            end = bounds[k + 1]
    return whole(begin), whole(end) - whole(begin)


@triton.jit
def pick_place(group, passed):
    """(position in the list, first tile of this program, programs of the segment, elements)"""
    position = whole(pick(group.position, passed))
    first_program, programs = pick_programs(group.bounds, passed)
    high = whole(pick(group.count_high, passed)).to(tl.int64)
    count = (high << 24) + whole(pick(group.count_low, passed))
    # In 64 bits: so are all offsets that are made from it.
    return position, (tl.program_id(0) - first_program).to(tl.int64), programs, count


@triton.jit
def pick_numbers(group, passed, L: tl.constexpr, T: tl.constexpr):
    """(first, second, scale), the scale in the dtype of the results"""
    first, second, scale = pick(group.numbers, passed)
    return as_number(first, L).to(T), as_number(second, L).to(T), as_number(scale, L)


# ---- tiles of a segment --------------------------------------------------------------------------


@triton.jit
def minus_b(x, b, offsets, count, is_whole, B_IS_SCALAR: tl.constexpr, T: tl.constexpr):
    """x - b, for a b like x, a single one, or none."""
    if b is not None:
        if B_IS_SCALAR:
            x -= tl.load(b).to(T)
        else:
            x -= load_tile(b, offsets, count, is_whole, T)
    return x


@triton.jit
def store_pair(
    to_a,  # [count] or None
    to_b,  # [count], [] or None
    x,
    offsets,
    count,
    is_whole,
    B_IS_SCALAR: tl.constexpr,
):
    """Writes x to the gradient of a and -x to the gradient of a tensor b."""
    if to_a is not None:
        store_tile(to_a, x, offsets, count, is_whole)
    if to_b is not None and not B_IS_SCALAR:
        store_tile(to_b, -x, offsets, count, is_whole)


# ---- sums ----------------------------------------------------------------------------------------


@triton.jit
def sums_over_programs(
    sums,  # a tuple of numbers
    place,  # see pick_place
    workspace,  # int32, see reduction.py, or None: the segment has one program
    size,  # of the list
    SUMS: tl.constexpr,  # the most sums that a segment of the launch has
    BLOCK: tl.constexpr,
):
    """(whether this program is the last of its segment, the sums over those programs if so)

    The workspace: partials [SUMS, programs], shares [size]; a ticket for the list and [size]
    tickets for the segments.
    """
    position, first_tile, programs, _ = place
    is_last = programs == 1
    if workspace is not None:  # which Triton knows as it compiles  # noqa: SIM102
        if not is_last:
            partials = numbers_of(workspace, sums[0].dtype)
            tickets = tickets_behind(workspace, SUMS * tl.num_programs(0) + size)
            for k in tl.static_range(len(sums)):
                store_partial(partials, k, sums[k])
            is_last = take_ticket(tickets + 1 + position, programs)
            if is_last:
                first = partials + tl.program_id(0) - first_tile
                added = ()
                for k in tl.static_range(len(sums)):
                    row = first + k * tl.num_programs(0)
                    added = added + (sum_numbers(row, programs, BLOCK),)  # noqa: RUF005
                sums = added
    return is_last, sums


@triton.jit
def store_mean(
    values,  # [size]
    total,  # []
    follows,  # on another launch for the same list, of which the total is kept
    place,
    scale,
    mean,
    workspace,
    size,
    SUMS: tl.constexpr,
    SEGMENTS: tl.constexpr,  # of the launch
    BLOCK: tl.constexpr,
):
    """Writes the mean of a segment, and its share to the total of the list.

    The last segment of the launch to be done adds up the shares.
    """
    position = place[0]
    share = scale * mean
    tl.store(values + position, mean)
    if SEGMENTS == 1:
        before = tl.load(total, mask=follows > 0, other=0.0)
        tl.store(total, before + share)
    else:
        shares = numbers_of(workspace, share.dtype) + SUMS * tl.num_programs(0)
        tl.store(shares + position, share)
        if take_ticket(tickets_behind(workspace, SUMS * tl.num_programs(0) + size), SEGMENTS):
            before = tl.load(total, mask=follows > 0, other=0.0)
            tl.store(total, before + sum_numbers(shares, size, BLOCK))
