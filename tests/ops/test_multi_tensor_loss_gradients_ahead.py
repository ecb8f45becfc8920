"""What the forward on the CPU keeps for the backward, and every incoming gradient that it meets."""

from __future__ import annotations

import math

import pytest
import torch
from layouts import LAYOUTS
from loss_calls import SOFTPLUS, total
from oracle import (
    DTYPES,
    EPSILON,
    HALVES,
    OPERANDS,
    TRUTHS,
    assert_bitwise_repeatable,
    assert_close,
    draw,
    draw_segment,
    inputs_of,
    plain_total,
    same_bits,
)

from ganloss_fast import backends, ops
from ganloss_fast.ops import terms
from ganloss_fast.ops.terms import Segment

if not backends.HAS_NATIVE:
    pytest.skip(f"no native kernels: {backends.NATIVE_MISSING}", allow_module_level=True)
from ganloss_fast import _C

pytestmark = pytest.mark.cpu_only  # on a GPU nobody can know what the incoming gradient is

STEPS = ("relu(1 - z)", "relu(0.5 + z)", "|z|", "z")  # their slopes are kept, or known
INF = math.inf


def direct(loss, inputs):
    """The gradients as they are computed from the operands: nothing kept can serve this one."""
    gradients = torch.autograd.grad(loss, inputs, create_graph=True)
    return [gradient.detach() for gradient in gradients]


def second_passes(backward):
    """How often a backward runs the kernels over the operands again."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        backward()
    names = [event.name for event in profile.events()]
    return names.count("ganloss_fast::multi_tensor_loss_backward")


# ---- a factor behind the loss ------------------------------------------------------------------


@pytest.mark.parametrize("factor", [2.0, -2.5, 1 / 3, 65536.0, 1e-9, 0.0])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("operands", OPERANDS)
@pytest.mark.parametrize("name", TRUTHS)
def test_a_factor_behind_the_loss_gives_the_gradient_of_the_formula(
    isa, name, operands, dtype, factor
):
    """Half precision to the bit: what was rounded once is not multiplied."""
    segments = [draw_segment(TRUTHS[name].term, operands, (509,), dtype, scale=1.5)]
    inputs = inputs_of(segments)
    actual = torch.autograd.grad(factor * total(segments), inputs)
    truth = direct(factor * total(segments), inputs)
    for gradient, expected in zip(actual, truth):
        if dtype in HALVES and gradient.dim() > 0:
            assert torch.equal(gradient, expected)
        else:  # that of a 0-d b is a sum, and the direct one has rounded every summand
            assert_close(gradient, expected, (4 if gradient.dim() > 0 else 16) * EPSILON[dtype])


@pytest.mark.parametrize("factor", [INF, -INF, math.nan, 0.0, 1e30, 1e-35])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("name", TRUTHS)
def test_a_factor_at_the_end_of_the_range_gives_what_the_operands_give(isa, name, dtype, factor):
    a = torch.tensor([0.0, -0.0, 0.7, 1.0, -0.5, 3.0, -3.0, INF, -INF, math.nan] * 30).to(dtype)
    segments = [Segment(a.requires_grad_(), TRUTHS[name].term, 1.5)]
    (actual,) = torch.autograd.grad(factor * total(segments), a)
    (truth,) = direct(factor * total(segments), [a])
    rounding = 3 * EPSILON[dtype]
    torch.testing.assert_close(actual, truth, equal_nan=True, rtol=rounding, atol=0)


@pytest.mark.parametrize("operands", ["a", "w, a"])
@pytest.mark.parametrize(
    ("before", "behind"),
    [
        pytest.param(1e-38, 1e30, id="a factor that no number is fit for"),
        pytest.param(1e-40, 2.0**22, id="numbers that no factor is fit for"),
    ],
)
@pytest.mark.parametrize("name", TRUTHS)
def test_what_was_rounded_to_nothing_is_not_multiplied(isa, name, before, behind, operands):
    """A small scale before and a large factor behind: the gradient between has lost its digits."""
    segments = [draw_segment(TRUTHS[name].term, operands, (300,), torch.float32, scale=before)]
    (actual,) = torch.autograd.grad(behind * total(segments), segments[0].a)
    (truth,) = direct(behind * total(segments), [segments[0].a])
    assert truth.any()
    assert_close(actual, truth, 4 * EPSILON[torch.float32])


def test_what_overflowed_is_not_multiplied(isa):
    a = torch.full((40,), 3e38, requires_grad=True)
    segments = [Segment(a, terms.squared(0.0), 1e3)]
    (gradient,) = torch.autograd.grad(1e-3 * total(segments), a)
    assert_close(gradient, torch.full((40,), 2 * 3e38 / 40), 1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", STEPS)
def test_nan_among_kept_slopes(isa, name, dtype):
    """NaN where the direct slope is NaN, which is abs; torch.relu's slope at NaN for a hinge."""
    a = draw(1000, dtype=dtype)
    a[[0, 255, 256, 999]] = math.nan
    segments = [Segment(a.requires_grad_(), TRUTHS[name].term)]
    (gradient,) = torch.autograd.grad(2 * total(segments), a)
    assert torch.equal(gradient.isnan(), a.isnan() if name == "|z|" else torch.zeros(1000) > 0)
    torch.testing.assert_close(gradient, direct(2 * total(segments), [a])[0], equal_nan=True)


GROUPS = (1, 3, 7, 8, 9, 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 513, 2047, 2049)
PIECES = (16383, 16384, 16385, 32769)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["|z|", "relu(1 - z)"])
def test_slopes_of_every_length_are_kept(isa, name, dtype):
    segments = [
        draw_segment(TRUTHS[name].term, "a - b", (length,), dtype) for length in GROUPS + PIECES
    ]
    inputs = inputs_of(segments)
    actual = torch.autograd.grad(-3 * total(segments), inputs)
    for gradient, expected in zip(actual, direct(-3 * total(segments), inputs)):
        assert_close(gradient, expected, 0.0 if dtype in HALVES else EPSILON[dtype])


@pytest.mark.parametrize("layout_of_b", LAYOUTS)
@pytest.mark.parametrize("layout_of_a", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["|z|", "softplus(-z)"])
def test_gradients_ahead_have_the_layout_of_direct_ones(isa, name, dtype, layout_of_a, layout_of_b):
    a = LAYOUTS[layout_of_a](dtype).detach().requires_grad_()
    b = LAYOUTS[layout_of_b](dtype).detach().requires_grad_()
    segments = [Segment(a, TRUTHS[name].term, 1.5, b)]
    actual = torch.autograd.grad(0.3 * total(segments), [a, b])
    for gradient, expected in zip(actual, direct(0.3 * total(segments), [a, b])):
        assert gradient.stride() == expected.stride()
        assert_close(gradient, expected, 4 * EPSILON[dtype])


def test_slopes_are_read_by_the_kernels_that_wrote_them(isa):
    (segment,) = segments = [draw_segment(terms.ABSOLUTE, "a - b", (777,), torch.float16)]
    truth = direct(2 * total(segments), inputs_of(segments))
    loss = 2 * total(segments)
    for other in _C.available_cpu_isas():
        _C.select_cpu_isa(other)
        actual = torch.autograd.grad(loss, inputs_of(segments), retain_graph=True)
        assert torch.equal(actual[0], truth[0])
        assert torch.equal(actual[1], truth[1])
    assert segment.a.grad is None


# ---- a factor for each mean --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_mean_may_have_a_factor_of_its_own(isa, dtype):
    factors = [0.0, 1.0, -2.5, 3e-4, 7.0, 1.5, 0.3]
    segments = [
        draw_segment(truth.term, operands, (41,), dtype, scale=0.3 * k)
        for k, (truth, operands) in enumerate(zip(TRUTHS.values(), OPERANDS * 2))
    ]

    def loss():
        outputs = ops.multi_tensor_loss(segments)
        return (outputs.values * outputs.values.new_tensor(factors)).sum() - 2 * outputs.total

    actual = torch.autograd.grad(loss(), inputs_of(segments))
    for gradient, expected in zip(actual, direct(loss(), inputs_of(segments))):
        assert_close(gradient, expected, 4 * EPSILON[dtype])


def test_one_list_may_hold_what_can_be_multiplied_and_what_cannot(isa):
    segments = [
        draw_segment(truth.term, "a - b", (97,), dtype, scale=0.7)
        for truth in TRUTHS.values()
        for dtype in DTYPES
    ]
    actual = torch.autograd.grad(3 * total(segments), inputs_of(segments))
    for gradient, expected in zip(actual, direct(3 * total(segments), inputs_of(segments))):
        assert gradient.dtype == expected.dtype
        if gradient.dtype in HALVES:
            assert torch.equal(gradient, expected)
        assert_close(gradient, expected, 4 * EPSILON[gradient.dtype])


# ---- what is not done twice --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", TRUTHS)
def test_only_rounded_gradients_are_computed_again(native, name, dtype):
    segments = [draw_segment(TRUTHS[name].term, "a - b", (300,), dtype)]
    expected = int(dtype in HALVES and name not in STEPS)
    scaled, values = 2 * total(segments), ops.multi_tensor_loss(segments).values.sum()
    assert second_passes(total(segments).backward) == 0
    assert second_passes(scaled.backward) == expected
    assert second_passes(values.backward) == 0  # made for an incoming 1


def test_statistics_do_not_cost_the_gradient(native):
    segments = [draw_segment(SOFTPLUS, "a", (300,), torch.float32)]
    outputs = ops.multi_tensor_loss(segments, with_statistics=True)
    assert second_passes(outputs.total.backward) == 0


def test_a_gradient_that_is_differentiated_again_starts_from_the_operands(native):
    segments = [draw_segment(terms.squared(0.2), "a", (30,), torch.float64)]
    loss = 2 * total(segments)
    (first,) = torch.autograd.grad(loss, segments[0].a, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), segments[0].a, retain_graph=True)
    assert_close(second, torch.full((30,), 4 / 30, dtype=torch.float64), 1e-15)
    (again,) = torch.autograd.grad(loss, segments[0].a)
    assert_close(again, first, 1e-15)


# ---- the graph ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRUTHS)
@pytest.mark.parametrize("changed", ["a", "b"])
def test_an_operand_changed_in_place_is_detected_whatever_is_kept(native, name, changed):
    drawn = draw_segment(TRUTHS[name].term, "a - b", (8,), torch.float32)
    segment = drawn._replace(a=drawn.a * 1, b=drawn.b * 1)
    loss = total([segment])
    torch.autograd.grad(loss, drawn.a, retain_graph=True)
    with torch.no_grad():
        getattr(segment, changed).add_(1)
    for late in (loss, 2 * loss):  # the first backward alone is that of the operands as they were
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            torch.autograd.grad(late, drawn.a, retain_graph=True)


@pytest.mark.parametrize("name", TRUTHS)
def test_backward_twice_without_retain_graph_raises_whatever_is_kept(native, name):
    segments = [draw_segment(TRUTHS[name].term, "a - b", (8,), torch.float32)]
    loss = 2 * total(segments)
    loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


@pytest.mark.parametrize("name", TRUTHS)
def test_factors_change_from_backward_to_backward(native, name):
    segments = [draw_segment(TRUTHS[name].term, "a - b", (8,), torch.float64, 1.5)]
    inputs = inputs_of(segments)
    loss = total(segments)
    for factor in (2.0, 1.0, -0.5, 0.0, 1.0):
        expected = torch.autograd.grad(factor * plain_total(segments), inputs)
        actual = torch.autograd.grad(factor * loss, inputs, retain_graph=True)
        for gradient, truth in zip(actual, expected):
            assert_close(gradient, truth, 1e-14)
            gradient.zero_()  # it belongs to the caller


@pytest.mark.parametrize("name", TRUTHS)
def test_inputs_asked_for_one_by_one_keep_what_is_left(native, name):
    segments = [draw_segment(TRUTHS[name].term, "a - b", (8,), torch.float64) for _ in range(2)]
    loss = 3 * total(segments)
    gradients = []

    def one_by_one():
        for tensor in inputs_of(segments):
            gradients.extend(torch.autograd.grad(loss, tensor, retain_graph=True))

    assert second_passes(one_by_one) == 0
    for gradient, truth in zip(
        gradients, torch.autograd.grad(3 * plain_total(segments), inputs_of(segments))
    ):
        assert_close(gradient, truth, 1e-14)


@pytest.mark.parametrize("name", TRUTHS)
def test_an_empty_segment_takes_any_factor(native, name):
    a = draw(0, 2).requires_grad_()
    b = draw(0, 2).requires_grad_()
    gradients = torch.autograd.grad(2 * total([Segment(a, TRUTHS[name].term, b=b)]), [a, b])
    assert [gradient.shape for gradient in gradients] == [(0, 2), (0, 2)]


@pytest.mark.parametrize("operands", OPERANDS)
@pytest.mark.parametrize("name", TRUTHS)
def test_scaled_gradients_are_bitwise_the_same_for_every_thread_count(native, name, operands):
    segments = [
        draw_segment(TRUTHS[name].term, operands, shape, torch.float32, 0.7)
        for shape in ((300_007,), (1,), (16_384,))
    ]
    assert_bitwise_repeatable(
        lambda: torch.autograd.grad(1.7 * total(segments), inputs_of(segments))
    )


@pytest.mark.parametrize("name", TRUTHS)
def test_one_is_the_gradient_that_the_operands_give_to_the_bit(isa, name):
    segments = [draw_segment(TRUTHS[name].term, "w, a - b", (5000,), torch.float32, 0.7)]
    inputs = inputs_of(segments)
    actual = torch.autograd.grad(total(segments), inputs)
    for gradient, expected in zip(actual, direct(total(segments), inputs)):
        assert same_bits(gradient, expected)


def test_the_loss_is_the_same_whether_a_gradient_is_wanted_or_not(isa):
    for truth in TRUTHS.values():
        segments = [draw_segment(truth.term, "a - b", (70_001,), torch.float32)]
        with torch.no_grad():
            expected = total(segments)
        assert same_bits(total(segments).detach(), expected)
