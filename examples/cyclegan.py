"""CycleGAN without pairs: photographs by day and other photographs at dusk (Zhu et al., 2017).

    python -m examples.cyclegan --losses fast --picture dusk.png

Least squares for both critics, ten times the cycle, five times the identity. Dusk is made:
darkened and tinted blue.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ganloss_fast as gf
from examples import setting
from examples.networks import Translator, patch_critic

CYCLE, IDENTITY = 10.0, 5.0
Two = Sequence[Tensor]  # of day, of dusk


def cycle_and_identity(generators: nn.ModuleList, real: Two, fake: Two) -> Tensor:
    to_dusk, to_day = generators
    (day, dusk), (fake_day, fake_dusk) = real, fake
    cycle = F.l1_loss(to_day(fake_dusk), day) + F.l1_loss(to_dusk(fake_day), dusk)
    identity = F.l1_loss(to_day(day), day) + F.l1_loss(to_dusk(dusk), dusk)
    return CYCLE * cycle + IDENTITY * identity


class Reference:
    """As people write it."""

    def critic_backward(self, critics: nn.ModuleList, real: Two, fake: Two) -> Tensor:
        loss = 0
        for critic, real_images, fake_images in zip(critics, real, fake):
            real_logits, fake_logits = critic(real_images), critic(fake_images)
            real_loss = F.mse_loss(real_logits, torch.ones_like(real_logits))
            fake_loss = F.mse_loss(fake_logits, torch.zeros_like(fake_logits))
            loss = loss + (real_loss + fake_loss) * 0.5
        loss.backward()
        return loss

    def generator_backward(
        self, critics: nn.ModuleList, generators: nn.ModuleList, real: Two, fake: Two
    ) -> Tensor:
        for critic in critics:
            critic.requires_grad_(False)  # as CycleGAN's set_requires_grad does
        loss = cycle_and_identity(generators, real, fake)
        for critic, images in zip(critics, fake):
            logits = critic(images)
            loss = loss + F.mse_loss(logits, torch.ones_like(logits))
        loss.backward()
        for critic in critics:
            critic.requires_grad_(True)
        return loss


class Fast:
    def critic_backward(self, critics: nn.ModuleList, real: Two, fake: Two) -> Tensor:
        loss = gf.discriminator_loss(
            [critic(images) for critic, images in zip(critics, real)],
            [critic(images) for critic, images in zip(critics, fake)],
            "least_squares",
            real_weight=0.5,
            fake_weight=0.5,
        )
        loss.backward()
        return loss

    def generator_backward(
        self, critics: nn.ModuleList, generators: nn.ModuleList, real: Two, fake: Two
    ) -> Tensor:
        loss = cycle_and_identity(generators, real, fake)
        logits = [critic(images) for critic, images in zip(critics, fake)]
        loss = loss + gf.generator_loss(logits, "least_squares")
        gf.generator_backward(loss, generators)  # no weight gradients of the critics
        return loss


def at_dusk(images: Tensor) -> Tensor:
    """[B, 3, S, S] in [-1, 1]."""
    tint = torch.tensor([0.35, 0.45, 0.7]).view(3, 1, 1)
    return (images + 1) * tint - 1


def main(arguments: Sequence[str] | None = None) -> setting.Log:
    options = setting.start(setting.parser(__doc__, steps=150, batch=4, size=64), arguments)
    losses = {"reference": Reference, "fast": Fast}[options.losses]()
    crops = setting.photographs(options.size)
    crops = crops[torch.randperm(len(crops))]
    days, dusks = crops[::2], at_dusk(crops[1::2])  # no photograph is in both
    critics = nn.ModuleList([patch_critic(3), patch_critic(3)])
    generators = nn.ModuleList([Translator(3), Translator(3)])
    to_critics = torch.optim.Adam(critics.parameters(), 2e-4, betas=(0.5, 0.999))
    to_generators = torch.optim.Adam(generators.parameters(), 5e-4, betas=(0.5, 0.999))
    log = setting.Log(options.steps)

    for _ in range(options.steps):
        day, dusk = setting.draw(days, options.batch), setting.draw(dusks, options.batch)
        fake = generators[1](dusk), generators[0](day)
        to_generators.zero_grad()
        generator_loss = losses.generator_backward(critics, generators, (day, dusk), fake)
        to_generators.step()

        to_critics.zero_grad()
        critic_loss = losses.critic_backward(critics, (day, dusk), [f.detach() for f in fake])
        to_critics.step()
        log.add(critics=critic_loss, generators=generator_loss)

    day, dusk = setting.draw(days, 64), setting.draw(dusks, 64)
    panels = {
        "day": setting.images(day),
        "day to dusk": setting.images(generators[0](day)),
        "dusk": setting.images(dusk),
        "dusk to day": setting.images(generators[1](dusk)),
    }
    log.draw(options.picture, f"CycleGAN, {options.steps} steps, {options.losses}", panels)
    return log


if __name__ == "__main__":
    main()
