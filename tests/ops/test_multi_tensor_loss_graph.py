"""The autograd graph of multi_tensor_loss: who gets a gradient, how often, how reproducibly."""

from __future__ import annotations

import pytest
import torch
import torch.utils.checkpoint
from loss_calls import SOFTPLUS, total
from oracle import (
    assert_bitwise_repeatable,
    assert_close,
    assert_gradients_match,
    draw,
    draw_segment,
    inputs_of,
    plain_total,
)

from ganloss_fast import ops
from ganloss_fast.ops import terms
from ganloss_fast.ops.terms import Segment

pytestmark = pytest.mark.every_implementation

# ---- which inputs need a gradient --------------------------------------------------------------


@pytest.mark.parametrize("operands", ["a - b", "a - mean"])
@pytest.mark.parametrize("learns", ["a", "b"])
def test_only_one_operand_may_require_grad(implementation, operands, learns):
    """The other side gets none, and the gradient is the one it gets beside it, to second order."""
    drawn = draw_segment(SOFTPLUS, operands, (13,), torch.float32)
    frozen = drawn._replace(**{n: getattr(drawn, n).detach() for n in "ab" if n != learns})
    assert_gradients_match(total, [frozen], 1e-5)
    total([frozen]).backward()
    assert (drawn.a.grad is None) == (learns == "b")
    assert (drawn.b.grad is None) == (learns == "a")


def test_nothing_requires_grad_where_no_input_does(implementation):
    outputs = ops.multi_tensor_loss([Segment(draw(3), SOFTPLUS)], True)
    assert not any(output.requires_grad for output in outputs)


def test_no_graph_is_built_under_no_grad(implementation):
    segment = draw_segment(SOFTPLUS, "a - b", (3,), torch.float32)
    with torch.no_grad():
        assert not total([segment]).requires_grad


def test_inputs_are_left_as_they_are(implementation):
    segment = draw_segment(SOFTPLUS, "w, a - b", (5,), torch.float32)
    copies = [tensor.detach().clone() for tensor in (segment.a, segment.b, segment.weight)]
    total([segment]).backward()
    for tensor, copy in zip((segment.a, segment.b, segment.weight), copies):
        assert torch.equal(tensor.detach(), copy)


# ---- the graph ---------------------------------------------------------------------------------


def test_backward_runs_twice_with_retain_graph(implementation):
    segment = draw_segment(SOFTPLUS, "w, a - b", (8,), torch.float32)
    loss = total([segment])
    loss.backward(retain_graph=True)
    once = segment.a.grad.clone()
    loss.backward()
    torch.testing.assert_close(segment.a.grad, 2 * once)


def test_backward_twice_without_retain_graph_raises(implementation):
    loss = total([draw_segment(SOFTPLUS, "a - b", (8,), torch.float32)])
    loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


@pytest.mark.parametrize("changed", ["a", "b", "weight"])
def test_an_input_changed_in_place_before_backward_is_detected(native, changed):
    drawn = draw_segment(SOFTPLUS, "w, a - b", (8,), torch.float32)
    segment = drawn._replace(a=drawn.a * 1, b=drawn.b * 1)
    loss = 2 * total([segment])
    with torch.no_grad():
        getattr(segment, changed).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.cpu_only  # on a GPU nobody can know that the incoming gradient is 1
@pytest.mark.parametrize("changed", ["a", "b", "weight"])
def test_a_backward_from_the_loss_finds_the_gradient_written_in_the_forward(native, changed):
    """So it is that of the inputs as they were, and needs no second pass over them."""
    drawn = draw_segment(SOFTPLUS, "w, a - b", (8,), torch.float32)
    segment = drawn._replace(a=drawn.a * 1, b=drawn.b * 1)
    (truth,) = torch.autograd.grad(total([segment]), segment.a)
    loss = total([segment])
    with torch.no_grad():
        getattr(segment, changed).add_(1)
    (gradient,) = torch.autograd.grad(loss, segment.a)
    assert torch.equal(gradient, truth)


def test_an_input_changed_in_place_is_detected_where_the_gradient_starts_from_it(native):
    drawn = draw_segment(SOFTPLUS, "a", (8,), torch.float32)
    a = drawn.a * 1
    loss = total([drawn._replace(a=a)])
    with torch.no_grad():
        a.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(loss, drawn.a, create_graph=True)


def test_checkpointing_gives_the_same_gradient(implementation):
    a = draw(40).requires_grad_()

    def loss(x):
        return total([Segment(x.sin(), SOFTPLUS)])

    for upstream in (1.0, 3.0):
        checkpointed = upstream * torch.utils.checkpoint.checkpoint(loss, a, use_reentrant=False)
        (gradient,) = torch.autograd.grad(checkpointed, a)
        (truth,) = torch.autograd.grad(upstream * loss(a), a)
        torch.testing.assert_close(gradient, truth)


def test_the_first_second_and_later_backwards_agree(implementation):
    """Whichever of them found a gradient that was written ahead."""
    segments = [draw_segment(SOFTPLUS, "a - b", (8,), torch.float64, 1.5)]
    loss = total(segments)
    inputs = inputs_of(segments)
    expected = torch.autograd.grad(plain_total(segments), inputs)
    for options in ({}, {"retain_graph": True}, {"create_graph": True}, {"retain_graph": True}):
        gradients = torch.autograd.grad(loss, inputs, **{"retain_graph": True, **options})
        for gradient, truth in zip(gradients, expected):
            assert_close(gradient, truth, 1e-14)
        if not options.get("create_graph"):
            for gradient in gradients:
                gradient.zero_()  # it belongs to the caller


def test_a_gradient_may_be_asked_for_one_input_at_a_time(implementation):
    segments = [draw_segment(SOFTPLUS, "a - b", (8,), torch.float64) for _ in range(2)]
    loss = total(segments)
    for tensor in inputs_of(segments):
        (gradient,) = torch.autograd.grad(loss, tensor, retain_graph=True)
        (truth,) = torch.autograd.grad(plain_total(segments), tensor)
        assert_close(gradient, truth, 1e-14)


def test_the_gradient_for_another_upstream_is_scaled(implementation):
    segment = draw_segment(SOFTPLUS, "a", (8,), torch.float64)
    (one,) = torch.autograd.grad(total([segment]), segment.a)
    (other,) = torch.autograd.grad(-2.5 * total([segment]), segment.a)
    assert_close(other, -2.5 * one, 1e-15)


def test_the_gradient_flows_back_through_the_upstream_factor(implementation):
    segment = draw_segment(SOFTPLUS, "a", (8,), torch.float64)
    factor = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    loss = factor * total([segment])
    (first,) = torch.autograd.grad(loss, segment.a, create_graph=True)
    (actual,) = torch.autograd.grad(first.sum(), factor)
    (one,) = torch.autograd.grad(plain_total([segment]), segment.a)
    assert_close(actual, one.sum(), 1e-14)


def test_hooks_and_accumulation_see_the_gradient_of_a_leaf_used_twice(implementation):
    a = draw(5).requires_grad_()
    seen = []
    a.register_hook(seen.append)
    total([Segment(a, SOFTPLUS), Segment(a, terms.LINEAR)]).backward()
    assert len(seen) == 1
    assert torch.equal(seen[0], a.grad)


# ---- determinism -------------------------------------------------------------------------------

BIG_LISTS = {
    "one big tensor": [(1_000_001,)],
    "many small tensors": [(k % 50 + 1,) for k in range(300)],
    "big and small": [(300_007,), (1,), (16_384,), (150_000,)],
}


@pytest.mark.parametrize("name", BIG_LISTS)
@pytest.mark.parametrize("operands", ["w, a - b", "a - mean"])
def test_bitwise_the_same_for_every_run_and_thread_count(isa, operands, name):
    segments = [
        draw_segment(SOFTPLUS, operands, shape, torch.float32, 0.7) for shape in BIG_LISTS[name]
    ]

    def compute():
        outputs = ops.multi_tensor_loss(segments, with_statistics=True)
        inputs = inputs_of(segments)
        first = torch.autograd.grad(outputs.total, inputs, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first[:2]), inputs[:2])
        return [*outputs, *first, *second]

    assert_bitwise_repeatable(compute)


# ---- guards ------------------------------------------------------------------------------------


def test_a_third_derivative_raises(native):
    a = draw(4, dtype=torch.float64).requires_grad_()
    (first,) = torch.autograd.grad(total([Segment(a, SOFTPLUS)]), a, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), a, create_graph=True)
    with pytest.raises(RuntimeError, match="not implemented"):
        torch.autograd.grad(second.sum(), a)


@pytest.mark.launches_nothing(reason="refused before any kernel")
@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # inside forward_ad
def test_forward_mode_raises(native):
    def loss(a):
        return total([Segment(a, SOFTPLUS)])

    with pytest.raises(NotImplementedError, match="forward-mode"):
        torch.func.jvp(loss, (draw(3),), (draw(3),))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(draw(3), draw(3))
        with pytest.raises(NotImplementedError, match="forward-mode"):
            loss(dual)


@pytest.mark.launches_nothing(reason="refused before any kernel")
def test_vmap_raises(native):
    with pytest.raises(NotImplementedError, match="vmap"):
        torch.vmap(lambda a: total([Segment(a, SOFTPLUS)]))(draw(2, 3))


@pytest.mark.launches_nothing(reason="refused before any kernel")
def test_vmap_over_a_gradient_raises(native):
    gradient = torch.func.grad(lambda a: total([Segment(a, SOFTPLUS)]))
    with pytest.raises(NotImplementedError, match="vmap"):
        torch.vmap(gradient)(draw(2, 3))
