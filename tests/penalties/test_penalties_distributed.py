"""A whole critic step under DistributedDataParallel: two processes, gloo."""

from __future__ import annotations

import traceback
from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from two_processes import WORLD, in_two_processes

import ganloss_fast as gf

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch without distributed")

STEPS = 3


class Critic(nn.Module):
    """With a bias in the last layer, which a penalty never reaches, and an unused layer."""

    def __init__(
        self, unused: bool = False, last_bias: bool = True, saved_buffer: bool = False
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, 2)
        self.conv2 = nn.Conv2d(4, 8, 3, 2)
        self.last = nn.Linear(8, 1, bias=last_bias)
        self.unused = nn.Linear(2, 2) if unused else None
        self.register_buffer("gain", torch.full((4, 1, 1), 0.5) if saved_buffer else None)

    def forward(self, x):
        h = F.leaky_relu(self.conv1(x), 0.2)
        if self.gain is not None:
            h = h * self.gain
        return self.last(F.leaky_relu(self.conv2(h), 0.2).mean((2, 3)))


def batch(rank: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(100 * step + rank)
    return tuple(torch.randn(2, 2, 3, 11, 11, generator=generator).unbind())


def train(critic, loss: Callable, ranks) -> list[torch.Tensor]:
    """Steps of SGD; ``ranks`` are the shares of the batch that this process has."""
    optimizer = torch.optim.SGD(critic.parameters(), lr=0.1)
    for step in range(STEPS):
        optimizer.zero_grad()
        total = sum(loss(critic, *batch(rank, step)) for rank in ranks) / len(ranks)
        total.backward()
        optimizer.step()
    return [parameter.detach().clone() for parameter in critic.parameters()]


def penalty_only(critic, real, fake):
    return gf.gradient_penalty(
        critic, real, fake, alpha=0.3, how=gf.Differentiation(zero_grads="all")
    )


def penalty_with_stock_zeros(critic, real, fake):
    return gf.gradient_penalty(critic, real, fake, alpha=0.3)


def combined(critic, real, fake):
    loss = critic(fake).mean() - critic(real).mean()
    return loss + gf.gradient_penalty(critic, real, fake, alpha=0.3)


def fast_weights(critic, real, fake):
    return gf.gradient_penalty(
        critic, real, fake, alpha=0.3, how=gf.Differentiation(graph_cut="fast", zero_grads="all")
    )


def shared_logits(critic, real, fake):
    real = real.clone().requires_grad_()
    logits = critic(real)
    return F.softplus(-logits).mean() + gf.penalty_from_logits(logits, real)


def chunked(critic, real, fake):
    scores = critic(torch.cat([fake, real]))
    loss = scores[: len(fake)].mean() - scores[len(fake) :].mean()
    return loss + gf.gradient_penalty(
        critic, real, fake, alpha=0.3, how=gf.Differentiation(chunk_size=1)
    )


def generator_step_through_a_frozen_critic(critic, real, fake):
    """The critic learns first; then a generator through it, with the critic frozen."""
    loss = combined(critic, real, fake)
    generator = nn.Conv2d(3, 3, 1)
    with torch.no_grad():
        generator.weight.fill_(0.1)
    with gf.frozen(critic):
        (-critic(generator(fake)).mean()).backward()
    assert generator.weight.grad is not None
    return loss


CASES = {
    "penalty only, all zeros": (penalty_only, {}, {}),
    "penalty only, no last bias": (penalty_with_stock_zeros, {"last_bias": False}, {}),
    "penalty only, find_unused_parameters": (
        penalty_only,
        {},
        {"find_unused_parameters": True},
    ),
    "unused layer, all zeros": (penalty_only, {"unused": True}, {}),
    "unused layer, find_unused_parameters": (
        combined,
        {"unused": True},
        {"find_unused_parameters": True},
    ),
    "penalty only, fast weights": (fast_weights, {}, {}),
    "main loss and penalty": (combined, {}, {}),
    "shared logits": (shared_logits, {}, {}),
    "chunks": (chunked, {}, {}),
    "chunks, a buffer saved for the backward": (
        chunked,
        {"saved_buffer": True},
        {"broadcast_buffers": False},  # stock fails at the second forward of a step with it
    ),
    "frozen": (generator_step_through_a_frozen_critic, {}, {}),
}


LAST_BIAS = "penalty only, stock zeros"


def work(rank: int) -> dict:
    results = {}
    for name, (loss, critic_options, ddp_options) in CASES.items():
        torch.manual_seed(0)
        try:
            critic = DistributedDataParallel(Critic(**critic_options), **ddp_options)
            results[name] = train(critic, loss, [rank])
        except Exception:
            results[name] = traceback.format_exc()
            break  # the other process waits for this one
    try:
        train(DistributedDataParallel(Critic()), penalty_with_stock_zeros, [rank])
    except RuntimeError as error:
        results[LAST_BIAS] = [str(error)]
    return results


@pytest.fixture(scope="module")
def results() -> list[dict]:
    return in_two_processes(work)


def test_stock_zeros_leave_the_reducer_waiting_for_the_last_bias(results):
    """What zero_grads="all" is for; a hand-written penalty fails alike."""
    for result in results:
        assert "Expected to have finished reduction in the prior iteration" in result[LAST_BIAS][0]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_as_one_on_the_whole_batch(results, name):
    for result in results:
        assert not isinstance(result.get(name), str), result[name]
    first, second = (result[name] for result in results)
    loss, critic_options, _ = CASES[name]
    torch.manual_seed(0)
    alone = train(Critic(**critic_options), loss, range(WORLD))
    for a, b, c in zip(first, second, alone, strict=True):
        assert torch.equal(a, b)
        assert torch.allclose(a, c, rtol=1e-5, atol=1e-7)
