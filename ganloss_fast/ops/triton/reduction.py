"""Sums over programs that are the same for every run: what the kernels share.

Every program stores its partial sums, then takes a ticket; the one that takes the last ticket adds
the partials in index order. No float is ever added atomically, so scheduling cannot show.

Memory order: the ticket is an acquire-release atomic. Release: the partials of a program are
visible before its ticket is counted. Acquire: the last program reads no stale ones. A relaxed
ticket gives wrong sums now and then, on some GPUs, and never in a test on a CPU without a race
check (tests/triton_guard.py has one).

The workspace of a launch is 32-bit words, zeroed: numbers of up to 64 bits, of which the partials
[sums, programs] are the first, and behind all numbers the tickets. One fill, and one argument.
"""

import triton
import triton.language as tl

# The most programs that a sum is cut into: 8 for each of 132 multiprocessors. A constant and not
# the GPU's own count, so that two GPUs add in the same order.
MAX_PROGRAMS = 1024


@triton.jit
def tickets_behind(
    workspace,  # int32
    numbers,  # how many
):
    """[tickets] int32: how many programs are done, 0 on entry."""
    return workspace + 2 * numbers


@triton.jit
def take_ticket(
    ticket,  # [] int32
    count,
):
    """True in the last of `count` programs to come here, which may read what they all wrote."""
    return tl.atomic_add(ticket, 1, sem="acq_rel") == count - 1


@triton.jit
def numbers_of(workspace, T: tl.constexpr):
    """[numbers] in the compute dtype."""
    return workspace.to(tl.pointer_type(T), bitcast=True)


@triton.jit
def store_partial(
    partials,  # [sums, programs]
    SUM: tl.constexpr,
    value,
):
    tl.store(partials + SUM * tl.num_programs(0) + tl.program_id(0), value)


@triton.jit
def sum_numbers(
    numbers,  # [count]
    count,
    BLOCK: tl.constexpr,
):
    """Their sum, in an order that depends on the count alone."""
    sums = tl.zeros((BLOCK,), numbers.dtype.element_ty)
    for start in range(0, count, BLOCK):
        index = start + tl.arange(0, BLOCK)
        sums += tl.load(numbers + index, mask=index < count, other=0.0)
    return tl.sum(sums, 0)
