"""R3GAN's recipe on photographs: relativistic cross-entropy with R1 and R2 in every step.

    python -m examples.relativistic --losses fast --picture relativistic.png

Real and generated images meet in pairs, and both penalties are taken of the logits that the loss
has already: a critic step is two forward passes (Huang et al., 2024, The GAN is dead).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ganloss_fast as gf
from demo.networks import LATENT_SIZE, build_critic, build_generator
from examples import setting

GAMMA = 0.5


class Reference:
    """As people write it."""

    def critic_backward(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        real_logits, fake_logits = critic(real), critic(fake)
        loss = F.softplus(-(real_logits - fake_logits)).mean()
        for logits, images in ((real_logits, real), (fake_logits, fake)):
            (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
            loss = loss + GAMMA / 2 * gradient.square().sum([1, 2, 3]).mean()
        loss.backward()
        return loss

    def generator_backward(
        self, critic: nn.Module, generator: nn.Module, real: Tensor, fake: Tensor
    ) -> Tensor:
        loss = F.softplus(-(critic(fake) - critic(real))).mean()
        loss.backward()
        return loss


class Fast:
    loss = gf.BCE(relativistic="paired")
    how = gf.Differentiation(graph_cut="fast")

    def critic_backward(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        real_logits, fake_logits = critic(real), critic(fake)
        loss = gf.discriminator_loss(real_logits, fake_logits, self.loss)
        loss = loss + gf.penalty_from_logits(real_logits, real, gf.R1(GAMMA), how=self.how)
        loss = loss + gf.penalty_from_logits(fake_logits, fake, gf.R2(GAMMA), how=self.how)
        loss.backward()
        return loss

    def generator_backward(
        self, critic: nn.Module, generator: nn.Module, real: Tensor, fake: Tensor
    ) -> Tensor:
        with torch.no_grad():  # the real logits lead to no image that learns
            real_logits = critic(real)
        loss = gf.generator_loss(critic(fake), self.loss, real=real_logits)
        gf.generator_backward(loss, generator)  # no weight gradients of the critic
        return loss


def main(arguments: Sequence[str] | None = None) -> setting.Log:
    options = setting.start(setting.parser(__doc__, steps=300, batch=32, size=32), arguments)
    losses = {"reference": Reference, "fast": Fast}[options.losses]()
    crops = setting.photographs(options.size)
    critic, generator = build_critic(options.size, 32), build_generator(options.size, 32)
    to_critic = torch.optim.Adam(critic.parameters(), 5e-4, betas=(0.0, 0.99))
    to_generator = torch.optim.Adam(generator.parameters(), 5e-4, betas=(0.0, 0.99))
    log = setting.Log(options.steps)

    for _ in range(options.steps):
        real = setting.draw(crops, options.batch)
        fake = generator(torch.randn(options.batch, LATENT_SIZE))
        to_critic.zero_grad()
        critic_loss = losses.critic_backward(
            critic, real.requires_grad_(), fake.detach().requires_grad_()
        )
        to_critic.step()

        to_generator.zero_grad()
        generator_loss = losses.generator_backward(critic, generator, real.detach(), fake)
        to_generator.step()
        log.add(critic=critic_loss, generator=generator_loss)

    panels = {
        "photographs": setting.images(setting.draw(crops, 64)),
        "generated": setting.images(generator(torch.randn(64, LATENT_SIZE))),
    }
    log.draw(options.picture, f"R3GAN, {options.steps} steps, {options.losses}", panels)
    return log


if __name__ == "__main__":
    main()
