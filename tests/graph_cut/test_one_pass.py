"""The recipe of docs/steps.md: one pass through the critic for both players, R1 and R2 included."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from critics import dcgan
from shared_steps import distance
from torch import Tensor, nn

import ganloss_fast as gf
from ganloss_fast import backends
from ganloss_fast.diagnose import CountFlops

WEIGHT = 5.0


def generator() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 3 * 16 * 16), nn.Tanh(), nn.Unflatten(1, (3, 16, 16)))


def normalised() -> nn.Module:
    """A critic that cannot share a backward."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 4, 2, 1),
        nn.GroupNorm(2, 8),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(512, 1),
    )


class Players:
    def __init__(self, make) -> None:
        torch.manual_seed(2)
        self.g, self.d = generator().double(), make().double()
        self.optimizers = [torch.optim.Adam(m.parameters(), lr=1e-3) for m in (self.g, self.d)]

    def gradients(self) -> list[Tensor | None]:
        return [p.grad for module in (self.g, self.d) for p in module.parameters()]

    def parameters(self) -> list[Tensor]:
        return [p.detach() for module in (self.g, self.d) for p in module.parameters()]

    def move(self, of_generator: bool) -> None:
        self.optimizers[0 if of_generator else 1].step()


def two_passes(players: Players, real: Tensor, noise: Tensor) -> None:
    """The generator, then the discriminator on the same samples, in plain PyTorch."""
    g, d = players.g, players.d
    fake = g(noise)
    loss = F.softplus(d(real).flatten().detach() - d(fake).flatten()).mean()
    for parameter, gradient in zip(g.parameters(), torch.autograd.grad(loss, list(g.parameters()))):
        parameter.grad = gradient
    players.move(of_generator=True)
    d.zero_grad()
    logits, penalties = [], []
    for x in (real, fake):
        x = x.detach().clone().requires_grad_()
        logits.append(d(x).flatten())
        (gradient,) = torch.autograd.grad(logits[-1].sum(), x, create_graph=True)
        penalties.append(WEIGHT * gradient.flatten(1).square().sum(1).mean())
    (F.softplus(logits[1] - logits[0]).mean() + sum(penalties)).backward()
    players.move(of_generator=False)


def one_pass(players: Players, real: Tensor, noise: Tensor) -> None:
    g, d = players.g, players.d
    g.zero_grad()
    d.zero_grad()
    loss = gf.BCE(relativistic="paired")
    images = g(noise)
    fake = images.detach().requires_grad_()
    real = real.clone().requires_grad_()
    fake_logits, r2 = gf.logits_and_penalty(d(fake).flatten(), fake, "r2", weight=WEIGHT)
    real_logits, r1 = gf.logits_and_penalty(d(real).flatten(), real, "r1", weight=WEIGHT)
    generator_loss = gf.generator_loss(fake_logits, loss, real=real_logits.detach())
    (direction,) = torch.autograd.grad(generator_loss, fake, retain_graph=True)
    images.backward(direction)
    players.move(of_generator=True)
    (gf.discriminator_loss(real_logits, fake_logits, loss) + r1 + r2).backward()
    players.move(of_generator=False)


@pytest.mark.parametrize("make", [lambda: dcgan(8, 16), normalised], ids=["shares", "does not"])
def test_both_players_go_the_same_way(make):
    mine, plain = Players(make), Players(make)
    for step in range(10):
        torch.manual_seed(step)
        real, noise = torch.randn(4, 3, 16, 16).double(), torch.randn(4, 6).double()
        one_pass(mine, real, noise)
        two_passes(plain, real, noise)
        if step == 0:
            assert distance(mine.gradients(), plain.gradients()) < 1e-13
    for ours, theirs in zip(mine.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.skipif(not backends.HAS_NATIVE, reason="needs the native extension")
def test_arithmetic():
    """In forward passes of the critic on one side: 3 (with the real samples) + 12 become 8."""
    real, noise = torch.randn(4, 3, 16, 16).double(), torch.randn(4, 6).double()

    def flops(run) -> float:
        players = Players(lambda: dcgan(8, 16))
        run(players, real, noise)  # looks at the critic
        networks = copy.deepcopy(players)
        with CountFlops() as whole:
            run(players, real, noise)
        with CountFlops() as apart:
            images = networks.g(noise)
            images.backward(torch.ones_like(images))
        with CountFlops() as forward:
            networks.d(real)
        return (whole.total - apart.total) / forward.total

    assert flops(two_passes) == pytest.approx(15, abs=0.05)
    assert flops(one_pass) == pytest.approx(8, abs=0.05)
