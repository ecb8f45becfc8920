"""Penalties and torch.compile where the critic brings derivatives, hooks or state of its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.torch_version import TorchVersion

import ganloss_fast as gf

pytestmark = [
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning",
        "ignore::FutureWarning",
        "ignore:The .grad attribute of a Tensor",  # Dynamo of torch 2.11, looking at what it traces
    ),
    pytest.mark.usefixtures("fresh_compiler"),
]
# Before 2.13, Dynamo stops at some of these critics itself, and says so in words of its own.
SAYS_IT_ITSELF = TorchVersion(torch.__version__) < (2, 13)


class FusedLeaky(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        y = nn.functional.leaky_relu(x, 0.2) * 1.4
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * torch.where(y > 0, 1.4, 0.28)


class Reversal(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, g):
        return -g


class Layer(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def doubled(x: Tensor) -> Tensor:
    if x.requires_grad:
        x.register_hook(lambda g: 2 * g)
    return x


LOSING = {
    "function": (FusedLeaky.apply, "an autograd.Function"),
    "function with setup_context": (Reversal.apply, "an autograd.Function"),
    "tensor hook": (doubled, "a tensor with a hook"),
}


def network(function, first: bool) -> nn.Module:
    layer = Layer(function)
    layers = [nn.Linear(4, 6), nn.Tanh(), layer, nn.Linear(6, 1)]
    return nn.Sequential(layer, *layers[:2], layers[3]) if first else nn.Sequential(*layers)


def everything_said(error: BaseException | None) -> str:
    said = ""
    while error is not None:
        said += str(error)
        error = error.__cause__ or error.__context__
    return said


@pytest.mark.parametrize("fullgraph", [True, False])
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", LOSING)
def test_derivatives_that_the_compiler_would_lose_are_refused(name, first, backend, fullgraph):
    function, words = LOSING[name]
    critic = network(function, first)
    step = torch.compile(
        lambda x: gf.r1_penalty(lambda z: critic(z), x), backend=backend, fullgraph=fullgraph
    )
    x = torch.randn(3, 4)
    if SAYS_IT_ITSELF and not fullgraph:  # refused, or run eagerly, and then right
        try:
            penalty = step(x)
        except Exception:
            return
        wanted = gradients(critic, plain_r1(critic, x))
        for mine, theirs in zip(gradients(critic, penalty), wanted, strict=True):
            torch.testing.assert_close(mine, theirs)
        return
    with pytest.raises(Exception) as caught:  # noqa: PT011 (Dynamo wraps it)
        step(x)
    assert words in everything_said(caught.value) or SAYS_IT_ITSELF


def plain_r1(critic, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return 5 * gradient.flatten(1).square().sum(1).mean()


def gradients(critic: nn.Module, penalty: Tensor) -> list[Tensor]:
    return torch.autograd.grad(penalty, list(critic.parameters()), materialize_grads=True)


def slices(linear: nn.Module, x: Tensor) -> Tensor:
    y = linear(x.tanh())
    out = torch.zeros_like(y)
    out[:, 0] += y[:, 2].abs()
    out[:, 0] += y[:, 2].abs()
    out[..., 1:] = y[..., 1:]
    return out.tanh().sum(1)


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
@pytest.mark.parametrize(
    "run",
    [lambda linear, x: linear(x).tanh(), slices, lambda linear, x: outside_of_autograd(linear, x)],
    ids=["plain", "slices", "function without gradient"],
)
def test_critics_that_lose_nothing_have_the_gradients_of_eager(run, backend):
    linear, x = nn.Linear(4, 6).double(), torch.randn(5, 4, dtype=torch.float64)
    critic = lambda z: run(linear, z)  # noqa: E731
    wanted = gradients(linear, plain_r1(critic, x))
    penalty = torch.compile(lambda z: gf.r1_penalty(critic, z), backend=backend, fullgraph=True)
    for mine, theirs in zip(gradients(linear, penalty(x)), wanted, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-10, atol=1e-14)


def outside_of_autograd(linear: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        scale = Reversal.apply(x).sum()
    return linear(x).tanh() * scale


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 1)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.linear(x)


@pytest.mark.parametrize("wrap", [lambda c: c, lambda c: lambda x: c(x)], ids=["module", "lambda"])
def test_a_buffer_that_moves_is_refused_by_name(wrap):
    critic = Counting()
    step = torch.compile(
        lambda x: gf.r1_penalty(wrap(critic), x), backend="aot_eager", fullgraph=True
    )
    with pytest.raises(Exception) as caught:  # noqa: PT011 (Dynamo wraps it)
        step(torch.randn(3, 4))
    if SAYS_IT_ITSELF:
        return
    said = everything_said(caught.value)
    assert "in place (a counter, a moving average)" in said
    assert "calls" in said or isinstance(wrap(critic), nn.Module) is False


# ---- compiled critics in approximate_r1_penalty ------------------------------------------------


def compiled_in_place(critic, backend):
    critic.compile(backend=backend)
    return critic


def compiled_block(critic, backend):
    critic[0].compile(backend=backend)
    return critic


def called(run):
    return lambda x: run(x)


WAYS = {
    "wrapped": lambda critic, backend: torch.compile(critic, backend=backend),
    "in place": compiled_in_place,
    "block": compiled_block,
    "lambda": lambda critic, backend: called(torch.compile(critic, backend=backend)),
    "bound method": lambda critic, backend: compiled_block(critic, backend).forward,
    "function": lambda critic, backend: torch.compile(lambda x: critic(x), backend=backend),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_compiled_critic_is_compiled_once(way):
    counter = CompileCounter()
    critic = nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
    run, x = WAYS[way](critic, counter), torch.randn(5, 4)
    for _ in range(10):
        gf.approximate_r1_penalty(run, x, 0.1).backward()
        run(x).sum().backward()
    # torch 2.11 does not ask a CompileCounter about modules that are compiled in place.
    assert SAYS_IT_ITSELF or counter.frame_count >= 1
    assert counter.frame_count <= 2
