"""Two networks and their optimizers, for steps that tests profile, and what the profile says."""

from __future__ import annotations

import torch
from torch import nn

from ganloss_fast.bench.profile import findings, target

B, WIDTH = 16, 32
LAYER = 2 * B * WIDTH * WIDTH  # FLOPs of one linear layer

# What the profile calls each waste; that of another network bears its name.
WEIGHTS = "weight gradients of the discriminator in the generator's step"
REAL = "the backward of the discriminator on samples that need no gradient, in the generator's step"
GENERATOR = "the backward of the generator in the discriminator's step"
AGAIN = "forwards of the discriminator that ran before, on the same samples and weights"
GENERATOR_AGAIN = "forwards of the generator that ran before, on the same samples and weights"
DEAD = "the second-order branch that carries exact zeros"
IN_ONE_STEP = f"{AGAIN}, both in the discriminator's step"
SAMPLES = "gradients of the samples in the discriminator's step, which nothing uses"
SECOND_WAY = "a second way back through the networks behind the generator, after autograd.grad"
GRAPH = "the graph of the generator, which no backward uses"


def critic_of(*more: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.LeakyReLU(0.2), *more, nn.Linear(WIDTH, WIDTH))


class Players:
    """Networks, optimizers, samples; ``found()`` is what a profile finds, in layers."""

    def __init__(self, critic: nn.Module | None = None, rate: float = 0.0) -> None:
        torch.manual_seed(0)
        self.g, self.d = nn.Linear(WIDTH, WIDTH), critic or critic_of()
        self.of_g = torch.optim.SGD(self.g.parameters(), lr=rate)
        self.of_d = torch.optim.SGD(self.d.parameters(), lr=rate)
        self.real, self.noise = torch.randn(2, B, WIDTH).unbind()

    def profile(self, step, perceptual=(), sides=None) -> findings.Profile:
        """``sides``: the modules that are named as discriminators and as generators."""
        ds, gs = sides or ([self.d], [self.g])
        return findings.profile(target.Target("test", lambda: step(self), ds, gs, perceptual))

    def found(self, step, perceptual=(), sides=None) -> dict[str, float]:
        profile = self.profile(step, perceptual, sides)
        return {each.what: each.cost.flops / LAYER for each in profile.findings}

    def learn_d(self, loss) -> None:
        self.of_d.zero_grad()
        loss.backward()
        self.of_d.step()

    def learn_g(self, loss) -> None:
        self.of_g.zero_grad()
        loss.backward()
        self.of_g.step()


def plainly(p: Players) -> None:
    """A step as most people write it; all that it throws away is WEIGHTS."""
    fake = p.g(p.noise)
    p.learn_d(p.d(fake.detach()).mean() - p.d(p.real).mean())
    p.learn_g(-p.d(fake).mean())
