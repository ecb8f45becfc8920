"""The backward passes of a step under DistributedDataParallel: two processes, gloo."""

from __future__ import annotations

import traceback

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from two_processes import WORLD, in_two_processes

import ganloss_fast as gf

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch without distributed")

STEPS = 3


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.last = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x):
        latents = self.body(x).tanh()
        return self.last(latents), latents


def critic() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))


def batch(rank: int, step: int) -> torch.Tensor:
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(100 * step + rank))


def balanced(model, judge, real, last, share):
    """The logits of the fake samples, detached from the model or not."""
    found, latents = model(real)
    logits = judge(found)
    gf.balanced_backward(
        [(found - real).square().mean(), -logits.mean()],
        found,
        last,
        weights=[1.0, 0.5],
        extra_loss=latents.square().mean(),
        retain_graph=share,
    )
    return logits if share else judge(found.detach())


def passed_through(model, judge, real, last, share):
    found, latents = model(real)
    logits = judge(found)
    loss = gf.generator_loss(logits, "bce") + latents.square().mean()
    gf.generator_backward(loss, model, shared_critic=judge if share else ())
    return logits if share else judge(found.detach())


CASES = {
    "balanced": (balanced, False),
    "balanced, one forward": (balanced, True),
    "passed through": (passed_through, False),
    "passed through, one forward": (passed_through, True),
}


def train(model, judge, last, step_of_the_model, share, ranks) -> list[torch.Tensor]:
    """``ranks`` are the shares of the batch that this process has; their gradients are averaged."""
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (model, judge)]
    for step in range(STEPS):
        shares = {rank: batch(rank, step) for rank in ranks}
        logits = {}
        for optimizer in optimizers:
            optimizer.zero_grad()
        for rank, real in shares.items():
            logits[rank] = step_of_the_model(model, judge, real, last, share)
        move(optimizers[0], len(ranks))
        for rank, real in shares.items():
            loss = gf.discriminator_loss(judge(real), logits[rank], "bce")
            gf.discriminator_backward(loss, judge, shares_forward=share)
        move(optimizers[1], len(ranks))
    return [p.detach().clone() for m in (model, judge) for p in m.parameters()]


def move(optimizer, shares: int) -> None:
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad /= shares
    optimizer.step()


def shared_norms(rank: int) -> gf.Balance:
    """Processes with batches of different sizes agree on norms."""
    torch.manual_seed(0)
    model = Model()
    found, _ = model(batch(rank, 0)[: 2 + rank])
    return gf.balanced_backward(
        [found.square().mean(), found.abs().sum()],
        found,
        rule=gf.GradientShares(epsilon=0.0),
        process_group=dist.group.WORLD,
    )


def work(rank: int) -> dict:
    results = {}
    for name, (step, share) in CASES.items():
        torch.manual_seed(0)
        try:
            model, judge = (DistributedDataParallel(m) for m in (Model(), critic()))
            results[name] = train(model, judge, model.module.last.weight, step, share, [rank])
        except Exception:
            results[name] = traceback.format_exc()
            break  # the other process waits for this one
    balance = shared_norms(rank)
    results["norms"] = [balance.norms, balance.weights]
    try:
        model = DistributedDataParallel(Model(), static_graph=True)
        gf.generator_backward(model(batch(0, 0))[0].sum(), model)
    except ValueError as error:
        results["static"] = str(error)
    return results


@pytest.fixture(scope="module")
def results() -> list[dict]:
    return in_two_processes(work)


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_as_one_that_averages(results, name):
    for result in results:
        assert not isinstance(result.get(name), str), result[name]
    first, second = (result[name] for result in results)
    step, share = CASES[name]
    torch.manual_seed(0)
    model, judge = Model(), critic()
    alone = train(model, judge, model.last.weight, step, share, range(WORLD))
    for a, b, c in zip(first, second, alone, strict=True):
        assert torch.equal(a, b)
        assert torch.allclose(a, c, rtol=1e-5, atol=1e-7)


def test_processes_agree_on_norms_by_their_samples(results):
    (first, weights), (second, others) = (result["norms"] for result in results)
    assert torch.equal(weights, others)
    assert not torch.allclose(first, second)
    torch.testing.assert_close(weights, 0.5 / ((2 * first + 3 * second) / 5))


def test_a_static_graph_is_refused(results):
    assert all("Leave static_graph out" in result["static"] for result in results)
