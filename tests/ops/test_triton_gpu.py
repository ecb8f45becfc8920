"""The Triton kernels on a GPU: what the interpreter and the compiler alone cannot show."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

import reference
from triton_interpreted import (
    DTYPES,
    EPSILON,
    all_orders,
    assert_near,
    draw,
    every_term,
    in_float64,
    leaf,
    penalty_orders,
)

from ganloss_fast import backends, ops
from ganloss_fast.bench.cuda_graph import capture
from ganloss_fast.ops import terms
from ganloss_fast.ops.terms import Segment

DEVICE = "cuda"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]


@pytest.fixture(autouse=True)
def on_triton():
    torch.manual_seed(0)
    with backends.use_backend("triton"):
        yield


def on_device(segments: list[Segment], device: str = DEVICE) -> list[Segment]:
    def move(tensor):
        if tensor is None:
            return None
        return tensor.detach().to(device).requires_grad_(tensor.requires_grad)

    return [s._replace(a=move(s.a), b=move(s.b), weight=move(s.weight)) for s in segments]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [1, 1009, 65_537, 3_000_001])
def test_every_term_and_operand_to_second_order(size, dtype):
    segments = every_term(size, dtype)
    ours = all_orders(ops.multi_tensor_loss, on_device(segments))
    truth = all_orders(reference.multi_tensor_loss, in_float64(segments))
    for order, tensors in ours.items():
        for actual, expected in zip(tensors, truth[order]):
            assert_near(actual.cpu(), expected, 8 * EPSILON[actual.dtype])


@pytest.mark.parametrize("shape", [(65_536, 3), (16, 33), (4, 100_003), (1, 3_000_001)], ids=str)
def test_the_penalty_to_second_order(shape):
    g = leaf(draw(*shape))
    ours = penalty_orders(ops.norm_penalty, leaf(g.to(DEVICE)), "two_sided")
    truth = penalty_orders(reference.norm_penalty, leaf(g.double()), "two_sided")
    for actual, expected in zip(ours, truth):
        assert_near(actual.cpu(), expected, 2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("size", [1, 1009, 3_000_001])
def test_perturb_adds_the_noise_of_the_reference_within_4_ulp(size, dtype):
    seed = torch.tensor(-1234567890123456789)
    zeros = torch.zeros(size, dtype=dtype)
    ours = ops.perturb(zeros.to(DEVICE), 1.0, seed.to(DEVICE)).cpu()
    with backends.use_backend("reference"):
        expected = ops.perturb(zeros, 1.0, seed)
    torch.testing.assert_close(ours, expected, rtol=4 * EPSILON[dtype], atol=0.0)


def test_bitwise_the_same_in_a_hundred_runs():
    """A ticket that did not acquire would show here, now and then."""
    segments = on_device(every_term(1_000_003, torch.bfloat16))
    first = ops.multi_tensor_loss(segments, True)
    for _ in range(100):
        again = ops.multi_tensor_loss(segments, True)
        for one, other in zip(first, again):
            assert torch.equal(one, other)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is no second GPU")
def test_a_tensor_on_the_second_gpu_is_computed_there():
    segments = on_device(every_term(1009, torch.float32), "cuda:1")
    assert torch.cuda.current_device() == 0
    ours = all_orders(ops.multi_tensor_loss, segments)
    truth = all_orders(reference.multi_tensor_loss, in_float64(segments))
    assert_near(ours["outputs"][0], truth["outputs"][0], 1e-5)


def test_a_list_is_captured_in_a_cuda_graph():
    """The addresses are the launch's own: they hold when only the graph is left of the call."""
    a = [leaf(draw(n)).to(DEVICE).detach().requires_grad_() for n in (7, 1009, 65_537)]

    def step():
        loss = ops.multi_tensor_loss([Segment(x, terms.hinge(1.0, 1.0)) for x in a]).total
        return [loss.detach(), *torch.autograd.grad(loss, a)]

    graph, captured = capture(step)
    with torch.no_grad():
        for x in a:
            x.normal_()
    expected = step()
    graph.replay()
    torch.testing.assert_close(captured, expected)


def test_a_step_is_captured_in_a_cuda_graph():
    a = leaf(draw(100_003)).to(DEVICE).detach().requires_grad_()

    def step():
        loss = ops.multi_tensor_loss([Segment(a, terms.softplus(1.0))]).total
        (gradient,) = torch.autograd.grad(loss, a, create_graph=True)
        penalty = ops.norm_penalty(gradient.view(1, -1), "two_sided", 1.0, 1.0)[0]
        return torch.autograd.grad(loss + penalty, a)[0]

    graph, captured = capture(step)
    with torch.no_grad():
        a.normal_()
    graph.replay()
    torch.testing.assert_close(captured, step())
