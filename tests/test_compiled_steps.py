"""Whole steps under torch.compile: gradients taken inside, and compiled autograd.

What is supported equals the eager step; what is not is refused, never silently wrong.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
from critics import dcgan
from torch import Tensor
from torch._dynamo import compiled_autograd

import ganloss_fast as gf

pytestmark = [
    pytest.mark.usefixtures("fresh_compiler"),
    pytest.mark.skipif(
        not hasattr(torch._dynamo.config, "trace_autograd_ops"),
        reason="this torch cannot trace autograd.grad",
    ),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

BACKENDS = ["eager", "aot_eager"]


@pytest.fixture
def critic() -> torch.nn.Module:
    torch.manual_seed(3)
    return dcgan(4, 16).double()


Samples = tuple[Tensor, Tensor]


@pytest.fixture
def samples() -> Samples:
    return torch.randn(2, 2, 3, 16, 16, dtype=torch.float64).unbind()


def wasserstein(critic, real, fake):
    loss = gf.discriminator_loss(critic(real), critic(fake), "wasserstein")
    return loss + gf.gradient_penalty(critic, real, fake, alpha=0.3)


def own_penalty(critic, real, fake):
    """Of a gradient that the caller takes, so that the penalty gets it as it is."""
    x = real.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return gf.penalty_from_grads(gradient)


def gradient_of_a_loss(critic, real, fake):
    """The gradient of the fused op's own gradient."""
    x = real.clone().requires_grad_()
    loss = gf.discriminator_loss(critic(x), critic(fake), "bce")
    (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
    return gradient.square().sum()


STEPS: dict[str, Callable[..., Tensor]] = {
    "wasserstein and gradient penalty": wasserstein,
    "R1": lambda critic, real, fake: gf.r1_penalty(critic, real),
    "an own penalty": own_penalty,
    "the gradient of a loss": gradient_of_a_loss,
}


def gradients(step: Callable[..., Tensor], critic, samples: Samples) -> list[Tensor]:
    parameters = list(critic.parameters())
    found = torch.autograd.grad(step(critic, *samples), parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters)]


def assert_alike(got: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(got, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", STEPS)
def test_gradients_taken_inside_the_compiled_step(critic, samples, name, backend):
    expected = gradients(STEPS[name], critic, samples)
    step = torch.compile(
        lambda: gradients(STEPS[name], critic, samples), fullgraph=True, backend=backend
    )
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        assert_alike(step(), expected)


def refusal(function: Callable[[], object]) -> str:
    with pytest.raises(Exception) as caught:  # noqa: PT011 (Dynamo wraps it)
        torch.compile(function, fullgraph=True, backend="aot_eager")()
    message, error = "", caught.value
    while error is not None:
        message += str(error)
        error = error.__cause__ or error.__context__
    return message


def test_penalty_from_logits_is_refused_inside_the_compiled_step(critic, samples):
    def step(critic, real, fake):
        x = real.clone().requires_grad_()
        return gf.penalty_from_logits(critic(x), x)

    with torch._dynamo.config.patch(trace_autograd_ops=True):
        assert "need the critic itself" in refusal(lambda: gradients(step, critic, samples))


@pytest.mark.skipif(not dist.is_available(), reason="torch without distributed")
def test_means_over_processes_are_refused_where_second_order_terms_get_lost(
    critic, samples, tmp_path
):
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        loss = gf.BCE(relativistic="average")
        group = dist.group.WORLD

        def step(critic, real, fake):
            return gf.discriminator_loss(critic(real), critic(fake), loss, process_group=group)

        with torch._dynamo.config.patch(trace_autograd_ops=True):
            message = refusal(lambda: gradients(step, critic, samples))
        assert "process_group: a loss over processes cannot be compiled with" in message
    finally:
        dist.destroy_process_group()


# ---- compiled autograd --------------------------------------------------------------------------


def backward(step: Callable[..., Tensor], critic, samples: Samples) -> list[Tensor]:
    critic.zero_grad()
    step(critic, *samples).backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in critic.parameters()]


@pytest.mark.parametrize("name", ["wasserstein and gradient penalty", "R1"])
def test_a_backward_inside_the_compiled_step_with_compiled_autograd(critic, samples, name):
    expected = backward(STEPS[name], critic, samples)
    critic.zero_grad()
    step = torch.compile(lambda: STEPS[name](critic, *samples).backward(), backend="aot_eager")
    with torch._dynamo.config.patch(compiled_autograd=True):
        step()
    got = [torch.zeros_like(p) if p.grad is None else p.grad for p in critic.parameters()]
    assert_alike(got, expected)


@pytest.mark.parametrize("name", ["wasserstein and gradient penalty", "R1"])
def test_compiled_autograd_refuses_an_eager_loss(critic, samples, name):
    """Our nodes cannot be traced by it; it says so instead of leaving them out."""
    loss = STEPS[name](critic, *samples)
    with (
        compiled_autograd._enable(torch.compile(backend="eager")),
        pytest.raises(NotImplementedError, match="compiled_args not implemented"),
    ):
        loss.backward()
