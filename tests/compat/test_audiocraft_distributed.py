"""AudioCraft averages over processes without being asked: two of them, gloo."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from drop_in_cases import maps_and_logits
from torch import nn
from two_processes import WORLD, in_two_processes

from ganloss_fast.compat import audiocraft as ac

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch without distributed")


def audio(rank: int) -> torch.Tensor:
    return torch.randn(2, 2, 1, 16, generator=torch.Generator().manual_seed(rank))


class Judge(nn.Module):
    """With a buffer that moves by what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = maps_and_logits()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen += x.sum()
        return self.inner(x)


def trained(seed: int, rank: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The adversary's state after one step, and the effective loss of a balanced one."""
    torch.manual_seed(seed)
    judge = Judge()
    loss = ac.AdversarialLoss(
        judge,
        torch.optim.SGD(judge.parameters(), 0.1),
        ac.mse_loss,
        ac.mse_real_loss,
        ac.mse_fake_loss,
    )
    loss.train_adv(*audio(rank))
    x = audio(rank)[0].requires_grad_()
    balancer = ac.Balancer({"a": 1.0, "b": 1.0}, epsilon=0.0, monitor=True)
    balancer.backward({"a": x.square().sum(), "b": x.abs().sum()}, x)
    return [t.detach() for t in judge.state_dict().values()], x.grad


def work(rank: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    return trained(seed=rank, rank=rank)


@pytest.fixture(scope="module")
def results() -> list:
    return in_two_processes(work)


def test_adversaries_begin_as_the_first_and_move_by_the_mean_gradient(results):
    (first, _), (second, _) = results
    for a, b in zip(first, second):
        assert torch.equal(a, b)
    alone = [trained(seed=0, rank=rank)[0] for rank in range(WORLD)]
    for a, *parts in zip(first, *alone):
        torch.testing.assert_close(a, sum(parts) / WORLD)


def test_the_balancer_agrees_on_norms(results):
    """Each gradient is divided by the mean norm of both processes, so the sum is known."""
    norms = {}
    for rank in range(WORLD):
        x = audio(rank)[0].flatten(1)
        norms[rank] = torch.stack([(2 * x).norm(dim=1).mean(), x.sign().norm(dim=1).mean()])
    average = (norms[0] + norms[1]) / 2
    for rank, (_, gradient) in enumerate(results):
        x = audio(rank)[0]
        wanted = 0.5 * (2 * x / average[0] + x.sign() / average[1])
        torch.testing.assert_close(gradient, wanted)
