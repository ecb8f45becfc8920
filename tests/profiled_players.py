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

    def profile(self, step, perceptual=()) -> findings.Profile:
        made = target.Target("test", lambda: step(self), [self.d], [self.g], perceptual)
        return findings.profile(made)

    def found(self, step, perceptual=()) -> dict[str, float]:
        profile = self.profile(step, perceptual)
        return {each.what: each.cost.flops / LAYER for each in profile.findings}

    def learn_d(self, loss) -> None:
        self.of_d.zero_grad()
        loss.backward()
        self.of_d.step()

    def learn_g(self, loss) -> None:
        self.of_g.zero_grad()
        loss.backward()
        self.of_g.step()
