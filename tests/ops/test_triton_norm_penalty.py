"""norm_penalty in Triton, in its interpreter under the guard."""

from __future__ import annotations

import pytest
import torch
import triton_guard

triton_guard.skip_module_without_interpreter()

import reference
import triton
import triton.language as tl
from triton_interpreted import (
    BATCHES,
    DTYPES,
    EPSILON,
    LAYOUTS,
    assert_near,
    compute_epsilon,
    draw,
    leaf,
    penalty_orders,
)

from ganloss_fast import ops
from ganloss_fast.ops.norm_penalty import PENALTY_MODES
from ganloss_fast.ops.triton import launchers
from ganloss_fast.ops.triton.norm_penalty import short_rows
from ganloss_fast.ops.triton.rows import long_row, rows_end_to_end

pytestmark = [pytest.mark.every_implementation, pytest.mark.usefixtures("under_guard")]


@pytest.mark.parametrize("mode", PENALTY_MODES)
@pytest.mark.parametrize("shape", BATCHES, ids=str)
def test_the_penalty_to_second_order(small_blocks, shape, mode):
    g = leaf(draw(*shape))
    ours = penalty_orders(ops.norm_penalty, g, mode)
    truth = penalty_orders(reference.norm_penalty, leaf(g.double()), mode)
    for actual, expected in zip(ours, truth):
        assert_near(actual, expected, 2e-5)  # float32: 2 - 2 target / norm cancels


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(3, 5), (2, 5000), (2, 3, 31, 29)], ids=str)
def test_the_penalty_in_every_dtype(shape, dtype):
    g = leaf(draw(*shape, dtype=dtype))
    penalty, norms, first, second = penalty_orders(ops.norm_penalty, g, "two_sided")
    truth = penalty_orders(reference.norm_penalty, leaf(g.double()), "two_sided")
    assert_near(penalty, truth[0], 20 * compute_epsilon(dtype))
    assert_near(norms, truth[1], 8 * compute_epsilon(dtype))
    for actual, expected in ((first, truth[2]), (second, truth[3])):
        assert actual.dtype == dtype
        assert_near(actual, expected, 40 * compute_epsilon(dtype) + 2 * EPSILON[dtype])


def test_a_sample_with_norm_zero_has_no_gradient_of_any_order(small_blocks):
    g = leaf(torch.cat([torch.zeros(1, 33), draw(2, 33)]))
    _, norms, first, second = penalty_orders(ops.norm_penalty, g, "two_sided")
    assert norms[0] == 0
    assert not first[0].any()
    assert not second[0].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("of_g", LAYOUTS)
def test_a_gradient_of_any_layout_is_penalised(small_blocks, of_g, dtype):
    g = leaf(LAYOUTS[of_g](draw(3, 4, 5, 2)).to(dtype))
    penalty, _, first, _ = penalty_orders(ops.norm_penalty, g, "two_sided")
    truth = penalty_orders(reference.norm_penalty, leaf(g.double()), "two_sided")
    assert_near(penalty, truth[0], 1e-5)
    assert_near(first, truth[2], 2 * EPSILON[dtype] + 1e-5)
    assert first.stride() == torch.empty_like(g).stride()


def test_norms_may_be_expanded_and_of_another_dtype(small_blocks):
    """A direct call of the op may pass what autograd never does."""
    g, grad_penalty = draw(3, 20), torch.tensor(0.5)
    norms = torch.ones((), dtype=torch.float64).expand(3)
    ours = launchers.norm_penalty_backward(grad_penalty, g, norms, 0, 0.5, 3.0)
    assert_near(ours, 0.5 * g.double(), 1e-6)  # 0.5 * 3 / 3 * (2 - 2 * 0.5 / 1) * g
    grad_grad, second = launchers.norm_penalty_double_backward(
        g, grad_penalty, g, norms, 0, 0.5, 3.0
    )
    squared = g.double().square().sum(1, keepdim=True)
    assert_near(grad_grad, squared.sum(), 1e-6)
    assert_near(second, 0.5 * (1 + squared) * g.double(), 1e-6)


@triton.jit
def write_long_row(out, splits, length, COLUMNS: tl.constexpr):
    row, split, base, tiles = long_row(splits, length, COLUMNS)
    to = out + 4 * tl.program_id(0)
    tl.store(to, row)
    tl.store(to + 1, split)
    tl.store(to + 2, base)
    tl.store(to + 3, tiles)


@triton.jit
def write_short_rows(out, batch, length, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    _, _, offsets, _ = short_rows(batch, length, ROWS, COLUMNS)
    index = tl.program_id(0) * ROWS * COLUMNS + tl.arange(0, ROWS * COLUMNS)
    tl.store(out + tl.reshape(index, (ROWS, COLUMNS)), offsets)


@pytest.mark.parametrize("length", [2**31 - 1, 2**31, 2**33 + 1])
def test_elements_of_long_rows_are_counted_in_64_bits(length):
    """2^31 - 1 is passed as 32 bits: the second row begins beyond them."""
    out = torch.zeros(6, 4, dtype=torch.int64)
    write_long_row[(6,)](out, 2, length, COLUMNS=1024)
    for program, (row, split, base, tiles) in enumerate(out.tolist()):
        begin, end = row * length, (row + 1) * length
        assert (row, split) == divmod(program, 2)
        assert begin - 16 < base <= begin
        assert base + (tiles - 1) * 1024 < end <= base + tiles * 1024


def test_elements_of_short_rows_are_counted_in_64_bits():
    length = 2**30 + 1
    out = torch.zeros(8, 2, dtype=torch.int64)
    write_short_rows[(2,)](out, 8, length, ROWS=4, COLUMNS=2)
    assert torch.equal(out, torch.arange(8)[:, None] * length + torch.arange(2))


@triton.jit
def write_rows_end_to_end(out, tile, batch, length, BLOCK: tl.constexpr):
    offsets, rows, end, is_whole = rows_end_to_end(tile.to(tl.int64), batch, length, BLOCK)
    index = tl.arange(0, BLOCK)
    tl.store(out + index, offsets)
    tl.store(out + BLOCK + index, rows)
    tl.store(out + 2 * BLOCK + index, end - offsets)
    tl.store(out + 3 * BLOCK + index, tl.zeros((BLOCK,), tl.int64) + is_whole)


@pytest.mark.parametrize("tile", [0, 2**27, 2**28 - 1, 2**28])
def test_elements_of_rows_end_to_end_are_counted_in_64_bits(tile):
    """2^32 elements and 9 more; the last tile but one is the last whole one."""
    out = torch.zeros(4, 16, dtype=torch.int64)
    batch, length = (2**32 + 9) // 5, 5
    write_rows_end_to_end[(1,)](out, tile, batch, length, BLOCK=16)
    offsets = 16 * tile + torch.arange(16)
    assert torch.equal(out[0], offsets)
    assert torch.equal(out[1], offsets // length)
    assert torch.equal(out[2], batch * length - offsets)
    assert (out[3] == (tile < 2**28)).all()


@pytest.mark.parametrize("shape", [(3, 4), (2, 37)], ids=str)
def test_the_penalty_passes_gradgradcheck(small_blocks, shape):
    g = leaf(draw(*shape, dtype=torch.float64))

    def penalty(g):
        return ops.norm_penalty(g, "one_sided", 0.5, 3.0)[0]

    assert torch.autograd.gradcheck(penalty, g, fast_mode=True)
    assert torch.autograd.gradgradcheck(penalty, g, fast_mode=True)
