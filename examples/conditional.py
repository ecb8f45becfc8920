"""Conditional WGAN-GP: the generator is told which of five photographs to draw a crop of.

    python -m examples.conditional --critic projection --picture conditional.png

The critic takes images and labels, and the penalty passes them on: ``critic_args=(labels,)``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

import ganloss_fast as gf
from demo.networks import LATENT_SIZE, build_critic, build_generator
from examples import setting

PHOTOGRAPHS = 5


class ProjectionCritic(nn.Module):
    """Logit of the image plus its features projected onto the label (Miyato & Koyama, 2018)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        *features, self.last, self.flatten = build_critic(size, 32)
        self.features = nn.Sequential(*features)
        self.embedding = nn.Embedding(PHOTOGRAPHS, self.last.in_channels)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:  # [B, 3, S, S], [B] to [B]
        features = self.features(images)
        projection = (features.mean((2, 3)) * self.embedding(labels)).sum(1)
        return self.flatten(self.last(features)) + projection


class ConcatenatingCritic(nn.Module):
    """The label as one more channel of the image (Mirza & Osindero, 2014)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(PHOTOGRAPHS, size * size)
        self.join = nn.Conv2d(4, 3, 1)
        self.critic = build_critic(size, 32)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:  # [B, 3, S, S], [B] to [B]
        channel = self.embedding(labels).view(-1, 1, *images.shape[2:])
        return self.critic(self.join(torch.cat([images, channel], 1)))


class Reference:
    """As people write it."""

    def critic_backward(
        self, critic: nn.Module, real: Tensor, fake: Tensor, labels: Tensor
    ) -> Tensor:
        loss = critic(fake, labels).mean() - critic(real, labels).mean()
        alpha = torch.rand(len(real), 1, 1, 1)
        mixed = (alpha * real + (1 - alpha) * fake).requires_grad_()
        logits = critic(mixed, labels)
        (gradient,) = torch.autograd.grad(
            logits, mixed, torch.ones_like(logits), create_graph=True, retain_graph=True
        )
        loss = loss + 10.0 * ((gradient.flatten(1).norm(2, dim=1) - 1) ** 2).mean()
        loss.backward()
        return loss

    def generator_backward(
        self, critic: nn.Module, generator: nn.Module, fake: Tensor, labels: Tensor
    ) -> Tensor:
        loss = -critic(fake, labels).mean()
        loss.backward()
        return loss


class Fast:
    how = gf.Differentiation(graph_cut="fast")

    def critic_backward(
        self, critic: nn.Module, real: Tensor, fake: Tensor, labels: Tensor
    ) -> Tensor:
        loss = gf.discriminator_loss(critic(real, labels), critic(fake, labels), "wasserstein")
        loss = loss + gf.gradient_penalty(
            critic, real, fake, "wgan-gp", critic_args=(labels,), how=self.how
        )
        loss.backward()
        return loss

    def generator_backward(
        self, critic: nn.Module, generator: nn.Module, fake: Tensor, labels: Tensor
    ) -> Tensor:
        loss = gf.generator_loss(critic(fake, labels), "wasserstein")
        gf.generator_backward(loss, generator)  # no weight gradients of the critic
        return loss


class ConditionalGenerator(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(PHOTOGRAPHS, LATENT_SIZE)
        self.draw = build_generator(size, 32)

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        return self.draw(noise + self.embedding(labels))


def main(arguments: Sequence[str] | None = None) -> setting.Log:
    critics = {"projection": ProjectionCritic, "concatenation": ConcatenatingCritic}
    parser = setting.parser(__doc__, steps=300, batch=32, size=32)
    parser.add_argument("--critic", choices=critics, default="projection")
    options = setting.start(parser, arguments)
    losses = {"reference": Reference, "fast": Fast}[options.losses]()
    crops = setting.photographs(options.size).unflatten(0, (PHOTOGRAPHS, -1))
    critic, generator = critics[options.critic](options.size), ConditionalGenerator(options.size)
    to_critic = torch.optim.Adam(critic.parameters(), 5e-4, betas=(0.0, 0.9))
    to_generator = torch.optim.Adam(generator.parameters(), 5e-4, betas=(0.0, 0.9))
    log = setting.Log(options.steps)

    for _ in range(options.steps):
        labels = torch.randint(PHOTOGRAPHS, (options.batch,))
        real = crops[labels, torch.randint(crops.shape[1], (options.batch,))]
        fake = generator(torch.randn(options.batch, LATENT_SIZE), labels)
        to_critic.zero_grad()
        critic_loss = losses.critic_backward(critic, real, fake.detach(), labels)
        to_critic.step()

        to_generator.zero_grad()
        generator_loss = losses.generator_backward(critic, generator, fake, labels)
        to_generator.step()
        log.add(critic=critic_loss, generator=generator_loss)

    labels = torch.arange(PHOTOGRAPHS).repeat_interleave(8)  # a row for each photograph
    panels = {
        "photographs": setting.images(crops[:, :8].flatten(0, 1)),
        "generated": setting.images(generator(torch.randn(len(labels), LATENT_SIZE), labels)),
    }
    title = f"{options.critic} critic, {options.steps} steps, {options.losses}"
    log.draw(options.picture, title, panels)
    return log


if __name__ == "__main__":
    main()
