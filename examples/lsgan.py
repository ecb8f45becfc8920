"""LSGAN on photographs: least squares in place of the logarithm (Mao et al., 2017).

    python -m examples.lsgan --losses fast --picture lsgan.png

The critic's loss carries the paper's factor 1/2, as most scripts write it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ganloss_fast as gf
from demo.networks import LATENT_SIZE, build_critic, build_generator
from examples import setting


class Reference:
    """As people write it."""

    def critic_backward(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        real_logits, fake_logits = critic(real), critic(fake)
        real_loss = F.mse_loss(real_logits, torch.ones_like(real_logits))
        fake_loss = F.mse_loss(fake_logits, torch.zeros_like(fake_logits))
        loss = 0.5 * (real_loss + fake_loss)
        loss.backward()
        return loss

    def generator_backward(self, critic: nn.Module, generator: nn.Module, fake: Tensor) -> Tensor:
        logits = critic(fake)
        loss = F.mse_loss(logits, torch.ones_like(logits))
        loss.backward()
        return loss


class Fast:
    def critic_backward(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        loss = gf.discriminator_loss(
            critic(real), critic(fake), "least_squares", real_weight=0.5, fake_weight=0.5
        )
        loss.backward()
        return loss

    def generator_backward(self, critic: nn.Module, generator: nn.Module, fake: Tensor) -> Tensor:
        loss = gf.generator_loss(critic(fake), "least_squares")
        gf.generator_backward(loss, generator)  # no weight gradients of the critic
        return loss


def main(arguments: Sequence[str] | None = None) -> setting.Log:
    options = setting.start(setting.parser(__doc__, steps=300, batch=32, size=32), arguments)
    losses = {"reference": Reference, "fast": Fast}[options.losses]()
    crops = setting.photographs(options.size)
    critic, generator = build_critic(options.size, 32), build_generator(options.size, 32)
    to_critic = torch.optim.Adam(critic.parameters(), 2e-4, betas=(0.5, 0.999))
    to_generator = torch.optim.Adam(generator.parameters(), 5e-4, betas=(0.5, 0.999))
    log = setting.Log(options.steps)

    for _ in range(options.steps):
        real = setting.draw(crops, options.batch)
        fake = generator(torch.randn(options.batch, LATENT_SIZE))
        to_critic.zero_grad()
        critic_loss = losses.critic_backward(critic, real, fake.detach())
        to_critic.step()

        to_generator.zero_grad()
        generator_loss = losses.generator_backward(critic, generator, fake)
        to_generator.step()
        log.add(critic=critic_loss, generator=generator_loss)

    panels = {
        "photographs": setting.images(setting.draw(crops, 64)),
        "generated": setting.images(generator(torch.randn(64, LATENT_SIZE))),
    }
    log.draw(options.picture, f"LSGAN, {options.steps} steps, {options.losses}", panels)
    return log


if __name__ == "__main__":
    main()
