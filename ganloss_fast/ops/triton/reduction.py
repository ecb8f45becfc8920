"""Sums over programs that are the same for every run: what the kernels share.

Every program stores its partial sums, then takes a ticket; the one that takes the last ticket adds
the partials in index order. No float is ever added atomically, so scheduling cannot show.

Memory order: the ticket is an acquire-release atomic. Release: the partials of a program are
visible before its ticket is counted. Acquire: the last program reads no stale ones. A relaxed
ticket gives wrong sums now and then, on some GPUs, and never in a test on a CPU without a race
check (tests/triton_guard.py has one).
"""

import triton
import triton.language as tl

# The most programs that a sum is cut into: 8 for each of 132 multiprocessors. A constant and not
# the GPU's own count, so that two GPUs add in the same order.
MAX_PROGRAMS = 1024


# What the launchers allocate, zeroed, for a launch of several programs: 32-bit words, the ticket
# and, from the next 16 bytes on, the partials, of up to 64 bits. One fill, and one argument.
PARTIALS_AT = tl.constexpr(4)
WORDS_OF_PARTIAL = 2


@triton.jit
def take_ticket(
    workspace,  # int32; the first word: how many programs are done, 0 on entry
):
    """True in the program that is the last to come here, which may read all partials."""
    taken = tl.atomic_add(workspace, 1, sem="acq_rel")
    return taken == tl.num_programs(0) - 1


@triton.jit
def partials_of(workspace, T: tl.constexpr):
    """[sums, programs] in the compute dtype."""
    return (workspace + PARTIALS_AT).to(tl.pointer_type(T), bitcast=True)


@triton.jit
def store_partial(workspace, SUM: tl.constexpr, value):
    partials = partials_of(workspace, value.dtype)
    tl.store(partials + SUM * tl.num_programs(0) + tl.program_id(0), value)


@triton.jit
def sum_partials(workspace, SUM: tl.constexpr, T: tl.constexpr, BLOCK: tl.constexpr):
    """The sum of one row of partials, in an order that depends on the number of programs alone."""
    partials = partials_of(workspace, T)
    programs = tl.num_programs(0)
    sums = tl.zeros((BLOCK,), T)
    for start in range(0, programs, BLOCK):
        index = start + tl.arange(0, BLOCK)
        sums += tl.load(partials + SUM * programs + index, mask=index < programs, other=0.0)
    return tl.sum(sums, 0)
