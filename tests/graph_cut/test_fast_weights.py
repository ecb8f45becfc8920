"""graph_cut="fast": weight gradients of convolutions by the kernel of an ordinary backward."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from convolutions import CountConvolutions
from critics import CRITICS, dcgan
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import ganloss_fast as gf
from ganloss_fast import backends

pytestmark = pytest.mark.skipif(not backends.HAS_NATIVE, reason="needs the native extension")


def backward(critic: nn.Module, x: Tensor, graph_cut: str) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*the statistics of the batch")
        penalty = gf.gradient_penalty(
            critic, x, at="real", how=gf.Differentiation(graph_cut=graph_cut)
        )
    penalty.backward()
    return penalty.detach()


def assert_close(actual: nn.Module, expected: nn.Module, tolerance: float) -> None:
    """None where and only where the other is None; else near, on the scale of all gradients."""
    pairs = list(zip(actual.parameters(), expected.parameters(), strict=True))
    assert [a.grad is None for a, _ in pairs] == [b.grad is None for _, b in pairs]
    pairs = [(a.grad, b.grad) for a, b in pairs if b.grad is not None]
    distance = torch.stack([(a - b).norm() for a, b in pairs]).norm()
    assert distance <= tolerance * torch.stack([b.norm() for _, b in pairs]).norm()


def two_copies(make, dtype=torch.float64) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(7)
    critic = make().to(dtype)
    return critic, copy.deepcopy(critic)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 3e-6), (torch.float64, 1e-12)], ids=str
)
@pytest.mark.parametrize("name", CRITICS)
def test_gradients_equal_those_of_stock_autograd_to_rounding(name, dtype, tolerance):
    fast, stock = two_copies(CRITICS[name].make, dtype)
    x = torch.randn(CRITICS[name].shape, dtype=dtype)
    assert torch.equal(backward(fast, x, "fast"), backward(stock, x, "off"))
    assert_close(fast, stock, tolerance)


# Three layers: a weight gradient of each, and the gradient of what came into it, which the last
# one does not need and stock autograd computes all the same.
@pytest.mark.parametrize(
    ("graph_cut", "convolutions", "backwards"), [("auto", 3 + 3, 0), ("fast", 2, 3)]
)
def test_weight_gradients_come_from_the_backward_kernel(graph_cut, convolutions, backwards):
    critic = dcgan(4, 16)
    assert sum(isinstance(layer, nn.Conv2d) for layer in critic) == 3
    x = torch.randn(2, 3, 16, 16)
    penalty = gf.gradient_penalty(critic, x, at="real", how=gf.Differentiation(graph_cut=graph_cut))
    with CountConvolutions() as count:
        penalty.backward()
    assert count.calls["convolution"] == convolutions
    assert count.calls["convolution_backward"] == backwards


LAYERS = {
    "one dimension": (lambda: nn.Conv1d(4, 6, 5, stride=2, padding=2), (2, 4, 21)),
    "three dimensions": (lambda: nn.Conv3d(4, 2, 3, padding=1), (2, 4, 5, 6, 4)),
    "transposed": (
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1),
        (2, 4, 5, 6),
    ),
    "groups": (lambda: nn.Conv2d(4, 6, 3, groups=2), (2, 4, 7, 6)),
    "depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4, padding=1), (2, 4, 7, 6)),
    "dilated": (lambda: nn.Conv2d(4, 6, 3, dilation=2), (2, 4, 9, 8)),
    "strides that leave a rest": (lambda: nn.Conv2d(4, 6, 3, stride=(3, 2)), (2, 4, 9, 8)),
    "reflection": (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (2, 4, 6, 6)),
    "no batch": (lambda: nn.Conv2d(4, 6, 3), (4, 6, 6)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_kind_of_convolution(name):
    make, shape = LAYERS[name]

    class Critic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before = nn.Parameter(torch.ones(shape[-1]))
            self.layer = make()

        def forward(self, x):
            return F.leaky_relu(self.layer(x * self.before), 0.2).square()

    fast, stock = two_copies(Critic)
    x = torch.randn(shape, dtype=torch.float64)
    for critic, choice in ((fast, "fast"), (stock, "off")):
        gf.r1_penalty(
            critic, x, penalty=gf.R1(norm="batch"), how=gf.Differentiation(graph_cut=choice)
        ).backward()
    assert_close(fast, stock, 1e-12)


def test_a_penalty_is_differentiable_once_more():
    torch.manual_seed(0)
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64)
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64, requires_grad=True)

    def penalty(weight: Tensor) -> Tensor:
        return gf.r1_penalty(
            lambda z: torch.tanh(F.conv2d(z, weight)), x, how=gf.Differentiation(graph_cut="fast")
        )

    assert torch.autograd.gradcheck(penalty, weight)
    assert torch.autograd.gradgradcheck(penalty, weight)


def test_an_inner_gradient_of_weights_too():
    """As an unrolled critic takes it: the node gets gradients of all its outputs."""
    torch.manual_seed(0)
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    critic = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Conv2d(3, 1, 3)).double()
    wanted = [x, *critic.parameters()]
    results = []
    for fast_weights in (True, False):
        inner = torch.autograd.grad(critic(x).sum(), wanted, create_graph=True)
        inner = gf.cut_second_order(list(inner), fast_weights=fast_weights)
        total = torch.stack([gradient.square().sum() for gradient in inner]).sum()
        results.append(torch.autograd.grad(total, wanted, allow_unused=True))
    for fast, stock in zip(*results, strict=True):
        assert (fast is None) == (stock is None)
        assert fast is None or torch.allclose(fast, stock, rtol=1e-12, atol=1e-12)


def gradient_of(critic: nn.Module, x: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return gradient


def test_the_gradient_as_it_was_may_be_used_beside_the_other():
    critic, other = two_copies(lambda: dcgan(4, 16))
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    stock = gradient_of(critic, x)
    (stock.square().sum() + gf.cut_second_order(stock, fast_weights=True).abs().sum()).backward()
    again = gradient_of(other, x)
    (again.square().sum() + again.abs().sum()).backward()
    for a, b in zip(critic.parameters(), other.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None)
        assert a.grad is None or torch.allclose(a.grad, b.grad, rtol=1e-12, atol=1e-14)


def test_backward_twice():
    critic, other = two_copies(lambda: dcgan(4, 16))
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    penalty = gf.r1_penalty(critic, x, how=gf.Differentiation(graph_cut="fast"))
    penalty.backward(retain_graph=True)
    penalty.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        penalty.backward()
    (2 * gf.r1_penalty(other, x, how=gf.Differentiation(graph_cut="off"))).backward()
    assert_close(critic, other, 1e-12)


def test_a_hook_on_the_stock_node_still_runs():
    critic, other = two_copies(lambda: dcgan(4, 16))
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    gradient = gradient_of(critic, x)
    assert gradient.grad_fn.name() == "ConvolutionBackwardBackward0"
    gradient.grad_fn.register_prehook(lambda grads: tuple(g if g is None else 3 * g for g in grads))
    gf.cut_second_order(gradient, fast_weights=True).square().sum().backward()
    (3 * gradient_of(other, x).square().sum()).backward()
    assert_close(critic, other, 1e-12)


def test_under_checkpointing():
    fast, stock = two_copies(lambda: dcgan(4, 16))
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    for critic, choice in ((fast, "fast"), (stock, "off")):
        checkpointed = lambda z, critic=critic: checkpoint(critic, z, use_reentrant=False)  # noqa: E731
        gf.r1_penalty(checkpointed, x, how=gf.Differentiation(graph_cut=choice)).backward()
    assert_close(fast, stock, 1e-12)


def test_under_autocast():
    fast, stock = two_copies(lambda: dcgan(8, 16), torch.float32)
    x = torch.randn(4, 3, 16, 16)
    for critic, choice in ((fast, "fast"), (stock, "off")):
        with torch.autocast("cpu", torch.bfloat16):
            penalty = gf.r1_penalty(critic, x, how=gf.Differentiation(graph_cut=choice))
        penalty.backward()
    assert_close(fast, stock, 2 * torch.finfo(torch.bfloat16).eps)


def test_frozen_weights_leave_the_graph_alone():
    critic = dcgan(4, 16).requires_grad_(False)
    x = torch.randn(2, 3, 16, 16, requires_grad=True)
    results = []
    for choice in ("fast", "off"):
        penalty = gf.r1_penalty(
            lambda z: critic(z).square(), x, how=gf.Differentiation(graph_cut=choice)
        )
        results.append(torch.autograd.grad(penalty, x)[0])
    assert torch.equal(*results)


def gradient_of_a_penaltys_gradient(activation: type[nn.Module], graph_cut) -> tuple[Tensor, ...]:
    """As an unrolled step takes it."""
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Conv2d(1, 3, 3), activation(), nn.Conv2d(3, 1, 3)).double()
    x, parameters = torch.randn(2, 1, 6, 6, dtype=torch.float64), list(critic.parameters())
    penalty = gf.r1_penalty(critic, x, how=gf.Differentiation(graph_cut=graph_cut))
    grads = torch.autograd.grad(penalty, parameters, create_graph=True, materialize_grads=True)
    total = sum(g.square().sum() for g in grads)
    return torch.autograd.grad(total, parameters, materialize_grads=True)


@pytest.mark.parametrize("activation", [nn.LeakyReLU, nn.SiLU])
def test_a_gradient_of_a_penaltys_gradient_is_right(native, activation):
    found, truth = (gradient_of_a_penaltys_gradient(activation, how) for how in ("fast", "off"))
    for mine, theirs in zip(found, truth, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-10)


@pytest.mark.parametrize("activation", [nn.Softplus, nn.Tanh])
def test_where_it_cannot_be_had_it_is_refused_by_name(native, activation):
    with pytest.raises(NotImplementedError, match='use graph_cut="auto"'):
        gradient_of_a_penaltys_gradient(activation, "fast")
