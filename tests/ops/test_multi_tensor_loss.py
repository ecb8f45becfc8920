"""The op multi_tensor_loss: values, gradients, second order, layouts, lists."""

from __future__ import annotations

import pytest
import torch
from layouts import DENSE_LAYOUTS, LAYOUTS
from loss_calls import SOFTPLUS, total, values_sum
from oracle import (
    DTYPES,
    EPSILON,
    OPERANDS,
    TRUTHS,
    assert_close,
    assert_gradients_match,
    assert_no_worse,
    compute_dtype,
    compute_epsilon,
    draw,
    draw_segment,
    in_dtype,
    inputs_of,
    plain_total,
    plain_values,
    truth_of,
)

from ganloss_fast import ops
from ganloss_fast.ops.terms import Segment

pytestmark = [pytest.mark.every_implementation, pytest.mark.order_of_threads]

ENTRIES = {"total": total, "values": values_sum}

# ---- values and gradients ----------------------------------------------------------------------


def gradients_of(loss, inputs, directions):
    """First-order gradients, and those of their product with fixed directions."""
    first = torch.autograd.grad(loss, inputs, create_graph=True)
    dot = sum((g * d.to(g)).sum() for g, d in zip(first, directions))
    if not dot.requires_grad:
        return first, [torch.zeros_like(t) for t in inputs]
    return first, torch.autograd.grad(dot, inputs, materialize_grads=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("operands", OPERANDS)
@pytest.mark.parametrize("name", TRUTHS)
def test_error_is_no_worse_than_plain_pytorch(implementation, name, operands, dtype):
    """In the compute dtype: float32 for halves, as autocast runs losses.

    Slack: 4 eps of the compute dtype for values, 2 eps of the storage dtype for gradients; 8 eps
    for float64, where the truth is rounded as well.
    """
    slack = (8 if dtype == torch.float64 else 2) * EPSILON[dtype]
    segments = [draw_segment(TRUTHS[name].term, operands, (509,), dtype, scale=1.5)]
    plain, exact = (in_dtype(segments, d) for d in (compute_dtype(dtype), torch.float64))
    ours, theirs, truth = total(segments), plain_total(plain), plain_total(exact)
    assert_no_worse(ours, theirs, truth, 4 * compute_epsilon(dtype))

    directions = [draw(*t.shape, dtype=torch.float64) for t in inputs_of(exact)]
    ours, theirs, truth = (
        gradients_of(loss, inputs_of(of), directions)
        for loss, of in ((ours, segments), (theirs, plain), (truth, exact))
    )
    for order in (0, 1):
        for actual, expected, exactly in zip(ours[order], theirs[order], truth[order]):
            assert actual.dtype == dtype
            assert_no_worse(actual, expected, exactly, slack)


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("operands", OPERANDS)
@pytest.mark.parametrize("name", TRUTHS)
def test_gradcheck_and_gradgradcheck(implementation, name, operands, entry):
    segment = draw_segment(TRUTHS[name].term, operands, (5,), torch.float64, scale=0.7)
    inputs = inputs_of([segment])

    def loss(*tensors):
        a, *b = tensors
        return ENTRIES[entry]([segment._replace(a=a, b=b[0] if b else None)])

    assert torch.autograd.gradcheck(loss, inputs)
    if name != "z":  # no second derivative: plain PyTorch has no graph for one
        assert torch.autograd.gradgradcheck(loss, inputs)


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_input_of_a_list_gets_its_gradient(implementation, entry):
    segments = [
        draw_segment(TRUTHS[name].term, operands, (3, 11), torch.float32, scale=0.3 * k - 1)
        for k, (name, operands) in enumerate(zip(TRUTHS, OPERANDS * 2))
    ]
    assert_gradients_match(ENTRIES[entry], segments, 1e-5)


def test_total_and_values_can_be_used_together(implementation):
    segments = [draw_segment(SOFTPLUS, "a", (7,), torch.float64, scale=2.0) for _ in range(2)]

    def both(given):
        outputs = ops.multi_tensor_loss(given)
        return 3 * outputs.total + outputs.values[1]

    def plain(given):
        return 3 * plain_total(given) + plain_values(given)[1]

    actual = torch.autograd.grad(both(segments), inputs_of(segments))
    truth = torch.autograd.grad(plain(segments), inputs_of(segments))
    for gradient, expected in zip(actual, truth):
        assert_close(gradient, expected, 1e-14)


def test_parts_of_the_values_may_be_used_alone(implementation):
    """Gradients reach the op as slices, expansions and zeros, with any strides."""
    segments = [draw_segment(SOFTPLUS, "a - b", (9,), torch.float64) for _ in range(4)]
    readings = {
        "slice": lambda values: values[::2].sum(),
        "expand": lambda values: values.expand(3, 4).sum(),
        "cat": lambda values: torch.cat([values, values[1:]]).square().sum(),
        "flip": lambda values: (values.flip(0) * torch.arange(4.0, dtype=torch.float64)).sum(),
        "one": lambda values: values[2],
    }
    for reading in readings.values():
        actual = torch.autograd.grad(
            reading(ops.multi_tensor_loss(segments).values),
            inputs_of(segments),
            materialize_grads=True,
        )
        truth = torch.autograd.grad(
            reading(torch.stack(plain_values(segments))),
            inputs_of(segments),
            materialize_grads=True,
        )
        for gradient, expected in zip(actual, truth):
            assert_close(gradient, expected, 1e-14)


def test_segments_of_one_call_may_differ_in_dtype(implementation):
    segments = [draw_segment(SOFTPLUS, "a - b", (33,), dtype) for dtype in DTYPES]
    loss = total(segments)
    assert loss.dtype == torch.float64
    truth = plain_total(in_dtype(segments, torch.float64))
    assert_close(loss, truth, 4 * EPSILON[torch.float32])
    for gradient, tensor in zip(
        torch.autograd.grad(loss, inputs_of(segments)), inputs_of(segments)
    ):
        assert gradient.dtype == tensor.dtype


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
    ids=str,
)
def test_outputs_are_float32_or_float64(implementation, dtype, expected):
    outputs = ops.multi_tensor_loss([Segment(draw(3, dtype=dtype), SOFTPLUS)], True)
    assert {output.dtype for output in outputs} == {expected}


# ---- sizes -------------------------------------------------------------------------------------

LENGTHS = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 63, 64, 65, 127, 257, 1009)
BLOCKS = (4095, 4096, 4097, 16383, 16384, 16385, 32768, 65537)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_length_around_the_blocks_of_the_kernels(implementation, dtype):
    for length in LENGTHS + BLOCKS:
        segments = [draw_segment(SOFTPLUS, "a - b", (length,), dtype)]
        exact = in_dtype(segments, torch.float64)
        loss, truth = total(segments), plain_total(exact)
        assert_close(loss, truth, 8 * compute_epsilon(dtype))
        actual = torch.autograd.grad(loss, inputs_of(segments))
        for gradient, expected in zip(actual, torch.autograd.grad(truth, inputs_of(exact))):
            # Half gradients of long means fall into the subnormals of float16.
            tiny = torch.finfo(dtype).smallest_normal * EPSILON[dtype]
            error = (gradient.double() - expected).abs()
            assert (error <= 16 * EPSILON[dtype] * expected.abs() + tiny).all(), length


@pytest.mark.parametrize("name", ["softplus(z)", "relu(1 - z)", "(z - 0.7)^2"])
def test_a_million_and_one_elements(implementation, name):
    segments = [draw_segment(TRUTHS[name].term, "a", (1_000_001,), torch.float32)]
    exact = in_dtype(segments, torch.float64)
    loss, truth = total(segments), plain_total(exact)
    assert_close(loss, truth, 2e-6 if implementation == "reference" else 2e-7)
    (gradient,) = torch.autograd.grad(loss, inputs_of(segments))
    (expected,) = torch.autograd.grad(truth, inputs_of(exact))
    assert_close(gradient, expected, 4 * EPSILON[torch.float32])


def test_an_empty_segment_is_nan_as_torch_mean_is(implementation):
    outputs = ops.multi_tensor_loss([Segment(draw(3), SOFTPLUS), Segment(draw(0, 2), SOFTPLUS)])
    assert outputs.values[0].isfinite()
    assert outputs.values[1].isnan()
    assert outputs.total.isnan()


def test_an_empty_segment_takes_part_in_first_and_second_order(implementation):
    a = draw(0, 2).requires_grad_()
    (gradient,) = torch.autograd.grad(total([Segment(a, SOFTPLUS)]), a, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), a)
    assert gradient.shape == second.shape == (0, 2)


def test_the_factor_of_an_empty_segment_gets_nan(implementation):
    """It is a mean over nothing, as the loss is."""
    a = draw(0, 2).requires_grad_()
    factor = torch.ones((), requires_grad=True)
    loss = factor * total([Segment(a, SOFTPLUS)])
    (gradient,) = torch.autograd.grad(loss, a, create_graph=True)
    (to_factor,) = torch.autograd.grad(gradient, factor, torch.zeros(0, 2))
    assert implementation == "reference" or to_factor.isnan()  # plain PyTorch: a sum of none, 0


def test_six_hundred_segments_in_one_call(implementation):
    kinds = [(truth.term, operands) for truth in TRUTHS.values() for operands in OPERANDS]
    segments = [
        draw_segment(*kinds[k % len(kinds)], (k % 40 + 1,), torch.float32, scale=1 / (k + 1))
        for k in range(600)
    ]
    values = ops.multi_tensor_loss(segments).values
    assert_close(values, torch.stack(plain_values(in_dtype(segments, torch.float64))), 1e-6)
    assert_gradients_match(total, segments, 1e-5)


def test_a_long_list_of_segments_that_share_one_tensor_adds_its_gradients(implementation):
    a = draw(6, dtype=torch.float64).requires_grad_()
    segments = [Segment(a, truth.term, 0.5) for truth in TRUTHS.values()]
    (gradient,) = torch.autograd.grad(total(segments), a)
    (expected,) = torch.autograd.grad(plain_total(segments), a)
    assert_close(gradient, expected, 1e-14)


# ---- layouts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("layout_of_b", LAYOUTS)
@pytest.mark.parametrize("layout_of_a", LAYOUTS)
def test_a_pair_may_have_any_two_layouts(implementation, layout_of_a, layout_of_b):
    a = LAYOUTS[layout_of_a](torch.float32).detach().requires_grad_()
    b = LAYOUTS[layout_of_b](torch.float32).detach().requires_grad_()
    assert_gradients_match(total, [Segment(a, SOFTPLUS, 1.5, b)], 1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_may_have_another_layout(implementation, layout):
    a = LAYOUTS["channels_last"](torch.float32).detach().requires_grad_()
    weight = LAYOUTS[layout](torch.float32).abs()
    assert_gradients_match(total, [Segment(a, SOFTPLUS, weight=weight)], 1e-5)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_dtype_reads_every_layout(implementation, layout, dtype):
    a = LAYOUTS[layout](dtype).detach().requires_grad_()
    loss = total([Segment(a, SOFTPLUS)])
    assert_close(loss, plain_total([Segment(a.double(), SOFTPLUS)]), 4 * compute_epsilon(dtype))


@pytest.mark.parametrize("layout", DENSE_LAYOUTS)
def test_a_gradient_has_the_layout_of_its_tensor(isa, layout):
    a = LAYOUTS[layout](torch.float32).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(total([Segment(a, SOFTPLUS)]), a)
    assert gradient.stride() == a.stride()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_second_order_direction_may_have_any_layout(implementation, layout):
    segment = Segment(draw(4, 6, 5, 7, dtype=torch.float64).requires_grad_(), SOFTPLUS)
    direction = LAYOUTS[layout](torch.float64)
    (first,) = torch.autograd.grad(total([segment]), segment.a, create_graph=True)
    (second,) = torch.autograd.grad(first, segment.a, direction)
    truth = truth_of(SOFTPLUS).curvature(segment.a) * direction / direction.numel()
    assert_close(second, truth, 1e-14)


PRODUCERS = {
    "cat": lambda x: torch.cat([x, 2 * x], 1),
    "expand": lambda x: x[:, :1].expand(4, 6, 5, 7),
    "slice": lambda x: x[:, ::2, 1:],
    "channels_last": lambda x: (x * 1).to(memory_format=torch.channels_last),
    "transpose": lambda x: x.transpose(1, 3),
    "conv": lambda x: torch.nn.functional.conv2d(x, x.new_full((2, 6, 3, 3), 0.1)),
}


@pytest.mark.parametrize("producer", PRODUCERS)
def test_logits_may_come_from_any_view_or_layer(implementation, producer):
    x = draw(4, 6, 5, 7, dtype=torch.float64).requires_grad_()
    directions = [draw(4, 6, 5, 7, dtype=torch.float64)]

    def both_orders(loss_of):
        return gradients_of(loss_of([Segment(PRODUCERS[producer](x), SOFTPLUS)]), [x], directions)

    for actual, truth in zip(both_orders(total), both_orders(plain_total)):
        assert_close(actual[0], truth[0], 1e-13)
