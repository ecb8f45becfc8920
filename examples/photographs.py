"""The training that examples on photographs share: a critic and a generator in turns."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from demo.networks import LATENT_SIZE, build_critic, build_generator
from examples import setting


class Losses(Protocol):
    """What an example is about: both losses with their backward."""

    def critic_backward(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor: ...

    def generator_backward(
        self, critic: nn.Module, generator: nn.Module, real: Tensor, fake: Tensor
    ) -> Tensor: ...


def _nothing(critic: nn.Module) -> None:
    pass


def train(
    options: argparse.Namespace,
    losses: Losses,
    name: str,
    *,
    critic_rate: float = 5e-4,
    generator_rate: float = 5e-4,
    betas: tuple[float, float] = (0.0, 0.9),
    prepare: Callable[[nn.Module], object] = _nothing,
    after_critic_step: Callable[[nn.Module], object] = _nothing,
) -> setting.Log:
    """Trains a DCGAN-size pair and draws what it generates."""
    crops = setting.photographs(options.size)
    critic, generator = build_critic(options.size, 32), build_generator(options.size, 32)
    prepare(critic)
    to_critic = torch.optim.Adam(critic.parameters(), critic_rate, betas=betas)
    to_generator = torch.optim.Adam(generator.parameters(), generator_rate, betas=betas)
    log = setting.Log(options.steps)

    for _ in range(options.steps):
        real = setting.draw(crops, options.batch)
        fake = generator(torch.randn(options.batch, LATENT_SIZE))
        to_critic.zero_grad()
        critic_loss = losses.critic_backward(critic, real, fake.detach())
        to_critic.step()
        after_critic_step(critic)

        to_generator.zero_grad()
        generator_loss = losses.generator_backward(critic, generator, real, fake)
        to_generator.step()
        log.add(critic=critic_loss, generator=generator_loss)

    panels = {
        "photographs": setting.images(setting.draw(crops, 64)),
        "generated": setting.images(generator(torch.randn(64, LATENT_SIZE))),
    }
    log.draw(options.picture, f"{name}, {options.steps} steps, {options.losses}", panels)
    return log
