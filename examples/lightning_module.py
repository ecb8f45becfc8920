"""A GAN as a LightningModule, with hinge loss; needs ``pip install lightning``.

    python -m examples.lightning_module --losses fast --picture lightning.png

With two optimisers Lightning leaves the step to you. ``frozen`` stands where its own examples have
``toggle_optimizer``.
"""

from __future__ import annotations

from collections.abc import Sequence

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

import ganloss_fast as gf
from demo.networks import LATENT_SIZE, build_critic, build_generator
from examples import setting


class GAN(lightning.LightningModule):
    """The step is here, the losses are of a subclass."""

    def __init__(self, size: int, log: setting.Log) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.critic, self.generator = build_critic(size, 32), build_generator(size, 32)
        self.curves = log

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [
            torch.optim.Adam(network.parameters(), 5e-4, betas=(0.0, 0.9))
            for network in (self.critic, self.generator)
        ]

    def training_step(self, real: Tensor) -> None:
        to_critic, to_generator = self.optimizers()
        fake = self.generator(torch.randn(len(real), LATENT_SIZE, device=self.device))
        to_critic.zero_grad()
        critic_loss = self.critic_backward(real, fake.detach())
        to_critic.step()

        to_generator.zero_grad()
        generator_loss = self.generator_backward(fake)
        to_generator.step()
        self.curves.add(critic=critic_loss, generator=generator_loss)


class Reference(GAN):
    """As people write it."""

    def critic_backward(self, real: Tensor, fake: Tensor) -> Tensor:
        loss = F.relu(1 - self.critic(real)).mean() + F.relu(1 + self.critic(fake)).mean()
        self.manual_backward(loss)
        return loss

    def generator_backward(self, fake: Tensor) -> Tensor:
        loss = -self.critic(fake).mean()
        self.manual_backward(loss)
        return loss


class Fast(GAN):
    def critic_backward(self, real: Tensor, fake: Tensor) -> Tensor:
        loss = gf.discriminator_loss(self.critic(real), self.critic(fake), "hinge")
        self.manual_backward(loss)
        return loss

    def generator_backward(self, fake: Tensor) -> Tensor:
        with gf.frozen(self.critic):  # no weight gradients of the critic
            loss = gf.generator_loss(self.critic(fake), "hinge")
        self.manual_backward(loss)
        return loss


def main(arguments: Sequence[str] | None = None) -> setting.Log:
    options = setting.start(setting.parser(__doc__, steps=300, batch=32, size=32), arguments)
    crops = setting.photographs(options.size)
    log = setting.Log(options.steps)
    gan = {"reference": Reference, "fast": Fast}[options.losses](options.size, log)
    trainer = lightning.Trainer(
        max_steps=2 * options.steps,  # Lightning counts those of both optimisers
        accelerator="gpu" if options.device != "cpu" else "cpu",
        devices=1,
        precision="64-true" if options.double else "32-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(gan, DataLoader(crops, options.batch, shuffle=True, drop_last=True))

    panels = {
        "photographs": setting.images(setting.draw(crops, 64)),
        "generated": setting.images(gan.generator(torch.randn(64, LATENT_SIZE))),
    }
    log.draw(options.picture, f"Lightning, {options.steps} steps, {options.losses}", panels)
    return log


if __name__ == "__main__":
    main()
