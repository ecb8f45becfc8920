"""The ops as autograd.Function classes, which serve where the extension is missing.

They run here over the extension's own CPU kernels; over the Triton kernels they run in
test_triton_multi_tensor_loss.py and its neighbours.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import reference
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ganloss_fast import backends, ops
from ganloss_fast.ops import terms
from ganloss_fast.ops.dispatch import is_plain_eager
from ganloss_fast.ops.interpolate import interpolate_function
from ganloss_fast.ops.multi_tensor_loss import multi_tensor_loss_function
from ganloss_fast.ops.norm_penalty import norm_penalty_function
from ganloss_fast.ops.perturb import perturb_function
from ganloss_fast.ops.terms import Segment


@pytest.fixture
def kernels():
    """The extension's CPU kernels as plain functions: no autograd of their own is used."""
    if not backends.HAS_NATIVE:
        pytest.skip(f"no extension: {backends.NATIVE_MISSING}")
    return SimpleNamespace(
        **{
            name: getattr(torch.ops.ganloss_fast, name).default
            for op in ops.OPS
            for name in op.fake_kernels()
        }
    )


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def segments_of(a, b, mean) -> list[Segment]:
    weight = torch.linspace(0, 1, a.numel(), dtype=a.dtype)
    return [
        Segment(a, terms.softplus(-1.0), 1.5, b),
        Segment(a, terms.squared(0.3), 0.5, mean, weight),
        Segment(b, terms.LINEAR, -1.0),
    ]


def loss_of(kernels, a, b, mean):
    """A scalar that uses the total and one of the values."""
    arguments = ops.flatten_segments(segments_of(a, b, mean))
    total, values, _ = multi_tensor_loss_function(kernels, *arguments, False)
    return total + 2 * values[1]


def plain_loss_of(a, b, mean):
    outputs = reference.multi_tensor_loss(segments_of(a, b, mean))
    return outputs.total + 2 * outputs.values[1]


def test_functions_have_first_and_second_derivatives(kernels):
    torch.manual_seed(0)
    inputs = (draw(5), draw(5), draw())
    assert torch.autograd.gradcheck(lambda *x: loss_of(kernels, *x), inputs)
    assert torch.autograd.gradgradcheck(lambda *x: loss_of(kernels, *x), inputs)

    def penalty(g):
        return norm_penalty_function(kernels, g, 1, 0.5, 3.0)[0]

    assert torch.autograd.gradcheck(penalty, draw(3, 4))
    assert torch.autograd.gradgradcheck(penalty, draw(3, 4))
    for alpha in (draw(), draw(3), draw(3, 4)):
        samples = (draw(3, 4), draw(3, 4), alpha)
        assert torch.autograd.gradcheck(lambda *x: interpolate_function(kernels, *x), samples)
        assert torch.autograd.gradgradcheck(lambda *x: interpolate_function(kernels, *x), samples)

    def energy(x):
        return perturb_function(kernels, x, 0.5, torch.tensor(3)) ** 3

    assert torch.autograd.gradcheck(energy, draw(5))
    assert torch.autograd.gradgradcheck(energy, draw(5))


@pytest.mark.parametrize("learns", ["a", "b", "mean"])
def test_functions_give_gradients_to_whoever_asks(kernels, learns):
    inputs = {"a": draw(5), "b": draw(5), "mean": draw()}
    inputs = {n: x if n == learns else x.detach() for n, x in inputs.items()}
    (actual,) = torch.autograd.grad(loss_of(kernels, **inputs), inputs[learns], create_graph=True)
    (expected,) = torch.autograd.grad(plain_loss_of(**inputs), inputs[learns], create_graph=True)
    torch.testing.assert_close(actual, expected)
    actual, expected = (
        torch.autograd.grad(g.square().sum(), inputs[learns], allow_unused=True)[0]
        for g in (actual, expected)
    )
    torch.testing.assert_close(actual, expected)


def test_functions_run_backward_twice(kernels):
    a, b, mean = draw(5), draw(5), draw()
    loss = loss_of(kernels, a, b, mean)
    loss.backward(retain_graph=True)
    once = a.grad.clone()
    loss.backward()
    torch.testing.assert_close(a.grad, 2 * once)


def test_functions_raise_for_a_third_derivative(kernels):
    a = draw(5)
    (first,) = torch.autograd.grad(loss_of(kernels, a, draw(5), draw()), a, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), a, create_graph=True)
    with pytest.raises(NotImplementedError, match="third-order"):
        torch.autograd.grad(second.sum(), a)
    g = draw(3, 4)
    penalty = norm_penalty_function(kernels, g, 0, 1.0, 1.0)[0]
    (first,) = torch.autograd.grad(penalty, g, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), g, create_graph=True)
    with pytest.raises(NotImplementedError, match="third-order"):
        torch.autograd.grad(second.sum(), g)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # torch's own, when it is first used
def test_functions_raise_in_forward_mode(kernels):
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(draw(5).detach(), draw(5).detach())
        with pytest.raises(RuntimeError, match=r"forward|jvp"):
            loss_of(kernels, dual, draw(5), draw())


def test_functions_refuse_weights_that_require_grad(kernels):
    weight = draw(5)
    arguments = ops.flatten_segments([Segment(draw(5), terms.LINEAR, weight=weight)])
    with pytest.raises(NotImplementedError, match="weights: no gradient flows"):
        multi_tensor_loss_function(kernels, *arguments, False)


def test_functions_leave_functorch_and_tracing_to_the_reference():
    """Where Function classes would refuse, or lose the second-order term."""
    x = torch.zeros(3)
    seen = {}
    seen["eager"] = is_plain_eager(x)
    torch.func.grad(lambda t: seen.update(grad=is_plain_eager(t)) or t.sum())(x)
    torch.vmap(lambda t: seen.update(vmap=is_plain_eager(t)) or t)(x)
    with FakeTensorMode() as mode:
        seen["fake"] = is_plain_eager(mode.from_tensor(x))

    def traced(t):
        return t + 1 if is_plain_eager(t) else t - 1

    seen["compiled"] = torch.compile(traced, backend="eager", fullgraph=True)(x)[0].item() > 0
    assert seen == {"eager": True, "grad": False, "vmap": False, "fake": False, "compiled": False}
