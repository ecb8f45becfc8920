"""multi_tensor_loss in Triton, run in its interpreter under the guard of triton_guard.py."""

from __future__ import annotations

import math

import pytest
import torch
import triton_guard

triton_guard.skip_module_without_interpreter()

import reference
import triton
import triton.language as tl
from triton_interpreted import (
    DTYPES,
    EPSILON,
    LAYOUTS,
    all_orders,
    assert_matches_reference,
    assert_near,
    compute_epsilon,
    draw,
    every_term,
    in_float64,
    inputs_of,
    leaf,
    set_block,
)

from ganloss_fast import ops
from ganloss_fast.ops import terms
from ganloss_fast.ops.multi_tensor_loss import flatten_segments, segment_statistics
from ganloss_fast.ops.terms import Segment
from ganloss_fast.ops.triton import launchers, segment_arguments
from ganloss_fast.ops.triton.segment_arguments import Numbers, Operands
from ganloss_fast.ops.triton.segments import bounds_passed, pick_numbers, pick_place
from ganloss_fast.ops.triton.terms import CURVATURE, SLOPE, TERM_FUNCTIONS, VALUE
from ganloss_fast.ops.triton.tiles import tile_count

INF, NAN = math.inf, math.nan


pytestmark = [pytest.mark.every_implementation, pytest.mark.usefixtures("under_guard")]


# ---- formulas ------------------------------------------------------------------------------------


@triton.jit
def apply_term(z, out, first, second, TERM: tl.constexpr, ORDER: tl.constexpr, N: tl.constexpr):
    offsets = tl.arange(0, N)
    tl.store(out + offsets, TERM(tl.load(z + offsets), first, second, 1.0, ORDER))


SOFTPLUS_TRUTH = {
    0: lambda z: torch.logaddexp(z, torch.zeros_like(z)),
    1: torch.sigmoid,
    2: lambda z: torch.sigmoid(z) * torch.sigmoid(-z),
}


@pytest.mark.parametrize("order", [VALUE, SLOPE, CURVATURE], ids=["value", "slope", "curvature"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_softplus_is_exact_to_a_few_ulp_over_its_whole_range(dtype, order):
    """Also in the tails, where tl.exp of a GPU is 60 ulp off and softplus is 1e-38."""
    z = torch.linspace(-103, 103, 8192, dtype=torch.float64).to(dtype)
    out = torch.empty_like(z)
    apply_term[(1,)](z, out, 1.0, 0.0, TERM=TERM_FUNCTIONS["softplus"], ORDER=order, N=8192)
    truth = SOFTPLUS_TRUTH[order.value](z.double())
    smallest = 1e-300 if dtype == torch.float64 else torch.finfo(dtype).smallest_normal * 1e-7
    error = (out.double() - truth).abs() - 2 * smallest
    assert (error <= 4 * EPSILON[dtype] * truth).all()


@pytest.mark.parametrize("name", terms.TERM_NAMES)
def test_terms_keep_limits_kinks_and_nan(name):
    """At -inf, -0, 0, 1 (the hinge's kink), inf and NaN: what autograd of plain PyTorch gives."""
    z = torch.tensor([-INF, -0.0, 0.0, 1.0, INF, NAN, -1e30, 1e30])
    truth = terms.TERM_FUNCTIONS[name](leaf(z.double()), 1.0, 1.0)
    x = leaf(z.double())
    (slope,) = torch.autograd.grad(terms.TERM_FUNCTIONS[name](x, 1.0, 1.0).sum(), x)
    if name == "abs":
        slope[5] = NAN  # torch.sign gives 0 there, which would hide the NaN of a step
    for order, expected in ((VALUE, truth), (SLOPE, slope)):
        out = torch.empty_like(z)
        apply_term[(1,)](z, out, 1.0, 1.0, TERM=TERM_FUNCTIONS[name], ORDER=order, N=8)
        torch.testing.assert_close(out, expected.detach().float(), equal_nan=True)


# ---- values and gradients ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [1, 1023, 1024, 1025, 5003])
def test_every_term_and_operand_to_second_order(size, dtype):
    assert_matches_reference(every_term(size, dtype))


@pytest.mark.parametrize("size", [2, 15, 16, 17, 31, 33, 63, 64, 65, 127, 331])
def test_every_edge_of_tiles_and_programs(small_blocks, size):
    """16 elements to a tile and at most 4 programs: above 64, programs take several tiles."""
    assert_matches_reference(every_term(size, torch.float32))


@triton.jit
def write_tile_count(out, count, BLOCK: tl.constexpr):
    tl.store(out, tile_count(count, BLOCK))


@pytest.mark.parametrize("count", [0, 1, 1024, 1025, 2**31 - 1, 2**31, 2**33 + 1])
def test_tiles_are_counted_in_64_bits(count):
    """2^31 - 1 is passed as 32 bits; rounded up to a multiple of 1024 there, it is negative."""
    out = torch.zeros((), dtype=torch.int64)
    write_tile_count[(1,)](out, count, BLOCK=1024)
    assert out == -(-count // 1024)


@pytest.mark.parametrize("size", [0, 1, 40])
def test_an_empty_segment_is_nan_and_has_empty_gradients(small_blocks, size):
    segments = [Segment(leaf(draw(0, 3)), terms.squared(0.0)), *every_term(size, torch.float32)]
    ours = all_orders(ops.multi_tensor_loss, segments)
    assert ours["outputs"][1][0].isnan()
    assert ours["outputs"][0].isnan()
    assert ours["first"][0].shape == ours["second"][0].shape == (0, 3)


def test_segments_of_one_call_may_differ_in_dtype(small_blocks):
    segments = [
        Segment(leaf(draw(40, dtype=dtype)), terms.softplus(1.0), 0.5, leaf(draw(dtype=dtype)))
        for dtype in DTYPES
    ]
    ours = all_orders(ops.multi_tensor_loss, segments)
    truth = all_orders(reference.multi_tensor_loss, in_float64(segments))
    assert ours["outputs"][0].dtype == torch.float64
    for segment, actual, expected in zip(segments, ours["outputs"][1], truth["outputs"][1]):
        assert_near(actual, expected, 4 * compute_epsilon(segment.a.dtype))
    for actual, expected in zip(ours["first"], truth["first"]):
        assert_near(actual, expected, 4 * max(EPSILON[actual.dtype], EPSILON[torch.float32]))


# ---- lists ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 2, 4])
def test_a_list_may_take_several_launches(small_blocks, monkeypatch, most):
    monkeypatch.setattr(segment_arguments, "MOST_SEGMENTS", most)
    assert_matches_reference(every_term(70, torch.float32))


def test_a_list_is_cut_where_the_arguments_are_full(small_blocks, monkeypatch):
    monkeypatch.setattr(segment_arguments, "MOST_ARGUMENTS", 3 * 56 + 128)
    assert_matches_reference(every_term(70, torch.float64))


@pytest.mark.parametrize("programs", [4, 32])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_list_of_one_kind_shares_its_programs(monkeypatch, dtype, programs):
    """Feature matching: sizes from less than a tile to more than all programs take at once."""
    set_block(monkeypatch, 16, programs)
    sizes = [3, 16, 17, 200, 64, 1, 90]
    segments = [
        Segment(leaf(draw(n, dtype=dtype)), terms.ABSOLUTE, 0.3, leaf(draw(n, dtype=dtype)))
        for n in sizes
    ]
    assert_matches_reference(segments)


def test_segments_of_one_kind_keep_their_own_numbers(small_blocks):
    segments = [
        Segment(leaf(draw(20)), terms.hinge(sign, margin), scale)
        for sign, margin, scale in [(1.0, 1.0, 0.5), (-1.0, 1.0, 0.5), (1.0, 0.3, 2.0)]
    ]
    assert_matches_reference(segments)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_segments_of_all_kinds_take_several_programs_each(monkeypatch, dtype):
    """Some sum for a scalar b as well, some do not: their tickets lie side by side."""
    set_block(monkeypatch, 16, 32)
    summed = [
        Segment(leaf(draw(331, dtype=dtype)), terms.softplus(1.0), 1.0, leaf(draw(dtype=dtype)))
        for _ in range(2)
    ]
    assert_matches_reference([*summed, *every_term(331, dtype)])


def test_a_value_does_not_depend_on_what_else_is_in_the_list():
    segments = every_term(1500, torch.float32)
    together = ops.multi_tensor_loss(segments).values
    for segment, value in zip(segments, together):
        assert torch.equal(ops.multi_tensor_loss([segment]).values[0], value)


@pytest.mark.parametrize("wanted", [[1], [0, 3], [2, 7], [5, 6, 1]])
def test_only_the_segments_that_are_asked_for_have_gradients(small_blocks, wanted):
    """Indices into a ++ b: the b of the segments 2, 4 and 5 are 6, 7 and 8."""
    segments = every_term(70, torch.float64)
    lists = flatten_segments([s._replace(a=s.a.detach()) for s in segments])
    weights = torch.arange(1.0, 7.0, dtype=torch.float64)
    ours = launchers.multi_tensor_loss_backward(weights[0], weights, *lists, wanted)
    tensors = [*(s.a for s in segments), *(s.b for s in segments if s.b is not None)]
    outputs = reference.multi_tensor_loss(segments)
    truth = torch.autograd.grad(
        outputs.total + (weights * outputs.values).sum(), [tensors[k] for k in wanted]
    )
    for actual, expected in zip(ours, truth):
        assert_near(actual, expected, 1e-14)


def arguments_of_one(count: int, number: float) -> segment_arguments.Group:
    operands = Operands([torch.zeros((), dtype=torch.float64)], None, None)
    numbers = Numbers([0], [count], [1], [0], [number], [0.0], [1.0])
    (group,) = segment_arguments.launches(operands, numbers, torch.float64)[0].groups
    return group


@triton.jit
def read_count_and_number(group, count, number):
    passed = bounds_passed(group)
    _, _, _, elements = pick_place(group, passed)
    tl.store(count, elements)
    first, _, _ = pick_numbers(group, passed, tl.float64, tl.float64)
    tl.store(number, first)


@pytest.mark.parametrize("count", [0, 1, 2**24 - 1, 2**24, 2**31 + 3, 2**47 + 2**24 + 5])
def test_counts_arrive_as_they_are(count):
    out, number = torch.zeros((), dtype=torch.int64), torch.zeros((), dtype=torch.float64)
    read_count_and_number[(1,)](arguments_of_one(count, 0.0), out, number)
    assert out == count


@pytest.mark.parametrize("value", [0.0, -0.0, 0.1, -1 / 3, 1e300, -5e-324, INF, -INF, NAN])
def test_numbers_of_float64_arrive_bit_for_bit(value):
    count, out = torch.zeros((), dtype=torch.int64), torch.zeros((), dtype=torch.float64)
    read_count_and_number[(1,)](arguments_of_one(1, value), count, out)
    assert out.view(torch.int64) == torch.tensor(value, dtype=torch.float64).view(torch.int64)


# ---- layouts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("of_b", LAYOUTS)
@pytest.mark.parametrize("of_a", LAYOUTS)
def test_operands_may_have_any_two_layouts(small_blocks, of_a, of_b):
    x, y, w = draw(3, 4, 5, 2), draw(3, 4, 5, 2), torch.rand(3, 4, 5, 2)
    a, b, weight = leaf(LAYOUTS[of_a](x)), leaf(LAYOUTS[of_b](y)), LAYOUTS[of_b](w)
    assert_matches_reference([Segment(a, terms.squared(0.2), 1.5, b, weight)])


@pytest.mark.parametrize("layout_of_a", ["contiguous", "channels_last", "transposed"])
def test_gradients_have_the_layout_of_their_tensor(small_blocks, layout_of_a):
    a = leaf(LAYOUTS[layout_of_a](draw(3, 4, 5, 2)))
    (gradient,) = torch.autograd.grad(
        ops.multi_tensor_loss([Segment(a, terms.softplus(1.0))]).total, a
    )
    assert gradient.stride() == a.stride()


@pytest.mark.parametrize(
    "read",
    [
        lambda values: values.sum(),  # an expanded gradient, stride 0
        lambda values: values[::2].sum(),
        lambda values: torch.cat([values, 3 * values]).square().sum(),
    ],
    ids=["sum", "slice", "cat"],
)
def test_gradients_of_the_values_may_have_any_stride(small_blocks, read):
    segments = every_term(33, torch.float64)
    exact = in_float64(segments)
    ours = torch.autograd.grad(
        read(ops.multi_tensor_loss(segments).values), inputs_of(segments), materialize_grads=True
    )
    truth = torch.autograd.grad(
        read(reference.multi_tensor_loss(exact).values), inputs_of(exact), materialize_grads=True
    )
    for actual, expected in zip(ours, truth):
        assert_near(actual, expected, 1e-14)


def test_an_incoming_gradient_may_be_a_negated_view(small_blocks):
    a = draw(33)
    incoming = torch.complex(torch.zeros(()), torch.tensor(-0.5)).conj().imag
    assert incoming.is_neg()
    (gradient,) = launchers.multi_tensor_loss_backward(
        incoming, None, [a], [], [], [0], [3], [0.0, 0.0], [2.0], [0]
    )
    assert_near(gradient, torch.full((33,), 1 / 33), 1e-6)


def test_gradcheck_and_gradgradcheck(small_blocks):
    segments = every_term(5, torch.float64)

    def loss(*tensors):
        given = iter(tensors)
        fresh = [
            s._replace(a=next(given), b=None if s.b is None else next(given)) for s in segments
        ]
        outputs = ops.multi_tensor_loss(fresh)
        return outputs.total, outputs.values[4]

    assert torch.autograd.gradcheck(loss, inputs_of(segments), fast_mode=True)
    assert torch.autograd.gradgradcheck(loss, inputs_of(segments), fast_mode=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_statistics_come_from_the_same_pass(small_blocks, dtype):
    segments = every_term(331, dtype)
    plain = ops.multi_tensor_loss(segments)
    detailed = ops.multi_tensor_loss(segments, with_statistics=True)
    assert torch.equal(plain.total, detailed.total)
    assert torch.equal(plain.values, detailed.values)
    assert not detailed.statistics.requires_grad
    for segment, row in zip(segments, detailed.statistics):
        assert_near(row, segment_statistics(segment.a.double()), 1e-5)


def test_statistics_count_what_is_not_finite(small_blocks):
    a = torch.tensor([1.0, INF, NAN, -INF] * 30)
    row = ops.multi_tensor_loss([Segment(a, terms.LINEAR)], True).statistics[0]
    assert row[3] == 90
    assert row[0].isnan()


@pytest.mark.parametrize("logit", [INF, -INF, NAN])
def test_a_weight_of_zero_removes_an_element_whatever_it_holds(small_blocks, logit):
    a = torch.tensor([0.3, logit] * 20, requires_grad=True)
    segment = Segment(a, terms.softplus(1.0), weight=torch.tensor([1.0, 0.0] * 20))
    loss = ops.multi_tensor_loss([segment]).total
    (first,) = torch.autograd.grad(loss, a, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), a)
    assert_near(loss, torch.tensor(0.3).exp().log1p() / 2, 1e-6)
    assert first.isfinite().all()
    assert not first[1::2].any()
    assert second.isfinite().all()
    assert not second[1::2].any()
