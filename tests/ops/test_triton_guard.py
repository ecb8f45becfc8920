"""The guard catches what it is there for, and the Triton kernels pass it however they run."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
import triton_guard

triton_guard.skip_module_without_interpreter()

import reference
import triton
import triton.language as tl
from triton_interpreted import (
    all_orders,
    assert_matches_reference,
    assert_near,
    draw,
    every_term,
    leaf,
    penalty_orders,
)

from ganloss_fast import backends, ops
from ganloss_fast.ops import terms
from ganloss_fast.ops.terms import Segment
from ganloss_fast.ops.triton import (
    launchers,
    multi_tensor_loss,
    multi_tensor_loss_kernels,
    norm_penalty,
    reduction,
    segments,
)

pytestmark = [pytest.mark.every_implementation, pytest.mark.usefixtures("under_guard")]


# ---- determinism ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2])
def test_bitwise_the_same_for_every_order_of_programs(small_blocks, seed):
    segments, g = every_term(331, torch.bfloat16), leaf(draw(2, 333))

    def compute():
        orders = all_orders(ops.multi_tensor_loss, segments)
        statistics = ops.multi_tensor_loss(segments, True).statistics
        penalty = penalty_orders(ops.norm_penalty, g, "two_sided")
        return [*(t for tensors in orders.values() for t in tensors), statistics, *penalty]

    before = compute()
    with triton_guard.guarded(seed):
        after = compute()
    for one, other in zip(before, after):
        assert torch.equal(one, other)


# ---- under the registered ops --------------------------------------------------------------------


@pytest.fixture
def registered():
    """The launchers as the CPU kernels of the registered ops: their C++ autograd runs Triton."""
    if not backends.HAS_NATIVE:
        pytest.skip(f"no extension: {backends.NATIVE_MISSING}")
    library = ops.register_launchers("cpu")
    with backends.use_backend("native"):
        yield
    library._destroy()


@pytest.mark.filterwarnings("ignore:.*verriding a previously registered kernel")
def test_the_c_plus_plus_autograd_runs_on_the_launchers(registered, small_blocks, monkeypatch):
    called = []
    original = launchers.multi_tensor_loss_double_backward
    monkeypatch.setattr(
        launchers,
        "multi_tensor_loss_double_backward",
        lambda *arguments: called.append(1) or original(*arguments),
    )
    assert_matches_reference(every_term(40, torch.float32))
    assert called
    g = leaf(draw(2, 37))
    ours = penalty_orders(ops.norm_penalty, g, "two_sided")
    truth = penalty_orders(reference.norm_penalty, leaf(g.double()), "two_sided")
    for actual, expected in zip(ours, truth):
        assert_near(actual, expected, 2e-5)


# ---- planted bugs --------------------------------------------------------------------------------


@triton.jit
def copy_beyond_the_end(x, out, N: tl.constexpr):
    offsets = tl.arange(0, N)
    tl.store(out + offsets, tl.load(x + offsets, mask=offsets < N - 1, other=0.0))


@triton.jit
def copy_a_list_beyond_the_end(group, N: tl.constexpr):
    offsets = tl.arange(0, N)
    for k in tl.static_range(len(group.x)):
        if tl.program_id(0) == k:
            tl.store(group.out[k] + offsets, tl.load(group.x[k] + offsets))


class Lists(NamedTuple):
    x: tuple[torch.Tensor, ...]
    out: tuple[torch.Tensor, ...]


@triton.jit
def read_beyond_the_end(x, out, N: tl.constexpr):
    tl.store(out, tl.sum(tl.load(x + tl.arange(0, N)), 0))


@triton.jit
def lost_update(x, out, N: tl.constexpr):
    offsets = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(out, tl.load(out) + tl.sum(tl.load(x + offsets), 0))


@triton.jit
def multiply_in_bfloat16(x, out, N: tl.constexpr):
    offsets = tl.arange(0, N)
    loaded = tl.load(x + offsets)
    tl.store(out + offsets, loaded * loaded)


@triton.jit
def sum_masked_lanes(x, out, n, N: tl.constexpr):
    offsets = tl.arange(0, N)
    tl.store(out, tl.sum(tl.load(x + offsets, mask=offsets < n), 0))


@triton.jit
def take_relaxed_ticket(ticket, count):
    return tl.atomic_add(ticket, 1, sem="relaxed") == count - 1


@triton.jit
def take_release_only_ticket(ticket, count):
    return tl.atomic_add(ticket, 1, sem="release") == count - 1


def loss_of(*sizes: int):
    return ops.multi_tensor_loss([Segment(draw(size), terms.LINEAR) for size in sizes])


# What takes tickets: the programs of a segment, the segments of a list, the parts of a batch.
TICKETED = {
    "programs": (segments, lambda: loss_of(100)),
    "segments": (segments, lambda: loss_of(5, 5, 5)),
    "rows": (norm_penalty, lambda: ops.norm_penalty(draw(2, 100), "two_sided", 1.0, 1.0)),
}


def test_an_access_out_of_bounds_is_caught():
    with pytest.raises(triton_guard.KernelFault, match="out of bounds: store of 1"):
        copy_beyond_the_end[(1,)](draw(63), draw(63), N=64)
    with pytest.raises(triton_guard.KernelFault, match="out of bounds: load of 1"):
        read_beyond_the_end[(1,)](draw(63), draw(1), N=64)


@pytest.mark.parametrize("short", ["x", "out"])
def test_an_access_out_of_bounds_through_a_list_is_caught(short):
    """The tensors of a list come in tuples: none of them may be left out of sight."""
    whole = Lists(tuple(draw(64) for _ in range(3)), tuple(draw(64) for _ in range(3)))
    copy_a_list_beyond_the_end[(3,)](whole, N=64)
    for cut in range(3):
        tensors = [x[:63].clone() if k == cut else x for k, x in enumerate(getattr(whole, short))]
        with pytest.raises(triton_guard.KernelFault, match=r"out of bounds: .* of 1"):
            copy_a_list_beyond_the_end[(3,)](whole._replace(**{short: tuple(tensors)}), N=64)


def test_a_segment_that_takes_the_count_of_another_is_caught(small_blocks, monkeypatch):
    """Planted in the kernels: the programs of a short segment run over its end."""
    original = segments.pick

    @triton.jit
    def pick_wrongly(column, passed):
        return column[len(column) - 1]

    loss_of(20, 40)
    monkeypatch.setattr(segments, "pick", pick_wrongly)
    assert segments.pick is not original
    with pytest.raises(triton_guard.KernelFault, match="out of bounds: load"):
        loss_of(20, 40)


def test_a_lost_update_is_caught():
    with pytest.raises(triton_guard.KernelFault, match="race"):
        lost_update[(4,)](draw(64), torch.zeros(1), N=16)


def test_arithmetic_in_bfloat16_is_caught():
    x = draw(16, dtype=torch.bfloat16)
    with pytest.raises(triton_guard.KernelFault, match="bfloat16 arithmetic"):
        multiply_in_bfloat16[(1,)](x, torch.empty_like(x), N=16)


def test_a_masked_lane_that_is_used_is_caught():
    out = torch.zeros(1)
    sum_masked_lanes[(1,)](draw(16), out, 9, N=16)
    assert out.isnan()


@pytest.mark.parametrize("ticket", [take_relaxed_ticket, take_release_only_ticket])
@pytest.mark.parametrize("name", TICKETED)
def test_a_ticket_that_does_not_acquire_is_caught(monkeypatch, small_blocks, name, ticket):
    """Planted in the kernels themselves: the sums come out right here, and wrong on a GPU."""
    module, call = TICKETED[name]
    monkeypatch.setattr(module, "take_ticket", ticket)
    with pytest.raises(triton_guard.KernelFault, match="race"):
        call()


def test_the_ticket_as_it_is_passes(small_blocks):
    for module, call in TICKETED.values():
        assert module.take_ticket is reduction.take_ticket
        call()


def test_the_guard_rounds_bfloat16_to_nearest_even():
    """The interpreter alone truncates: half of all values would be one ulp off."""
    values = torch.randn(4096).mul(2.0 ** torch.arange(-60, 68).repeat(32)).float()
    rounded = torch.from_numpy(triton_guard.round_to_bfloat16(values.numpy()).view("int16"))
    assert torch.equal(rounded.view(torch.bfloat16), values.bfloat16())


def test_memory_that_no_program_writes_is_seen(small_blocks, monkeypatch):
    """One program, which begins too late: its first tile keeps the NaN of fresh memory."""
    monkeypatch.setattr(multi_tensor_loss, "program_counts", lambda runs: [1 for _ in runs])
    monkeypatch.setattr(multi_tensor_loss_kernels, "pick_place", place_without_its_first_tile)
    a = leaf(draw(64))
    (gradient,) = torch.autograd.grad(ops.multi_tensor_loss([Segment(a, terms.LINEAR)]).total, a)
    assert gradient[:16].isnan().all()
    assert gradient[16:].isfinite().all()


@triton.jit
def place_without_its_first_tile(group, passed):
    position, first_tile, programs, count = segments.pick_place(group, passed)
    return position, first_tile + 1, programs, count
