"""The losses that tutorials teach, on photographs; each is a row of a table.

    python -m examples.tutorials --loss wgan-gp --picture wgan-gp.png

weighted-bce      cross-entropy with a weight for each side and soft real labels
hinge-sn          hinge, with spectral norm in every layer of the critic
wgan-gp           Wasserstein with gradient penalty
trio-bce, trio-wasserstein, trio-hinge
                  the three of a script with a switch; Wasserstein clips the critic's weights
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

import ganloss_fast as gf
from demo.networks import LATENT_SIZE, build_critic, build_generator
from examples import setting

REAL_LABEL, REAL_WEIGHT, FAKE_WEIGHT = 0.9, 1.0, 0.5  # of weighted-bce
CLIP = 0.03  # of trio-wasserstein
LOSSES = {
    "weighted-bce": gf.BCE(real_label=REAL_LABEL),
    "hinge-sn": "hinge",
    "wgan-gp": "wasserstein",
    "trio-bce": "bce",
    "trio-wasserstein": "wasserstein",
    "trio-hinge": "hinge",
}


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """10 E[(|gradient| - 1)^2] between real and fake images, in plain PyTorch."""
    alpha = torch.rand(len(real), 1, 1, 1)
    mixed = (alpha * real + (1 - alpha) * fake).requires_grad_()
    logits = critic(mixed)
    (gradient,) = torch.autograd.grad(
        logits, mixed, torch.ones_like(logits), create_graph=True, retain_graph=True
    )
    return 10.0 * ((gradient.flatten(1).norm(2, dim=1) - 1) ** 2).mean()


class Reference:
    """As the tutorials write it."""

    def __init__(self, loss: str) -> None:
        self.loss = loss

    def critic_backward(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        r, f = critic(real), critic(fake)
        if self.loss == "weighted-bce":
            real_loss = F.binary_cross_entropy_with_logits(r, torch.full_like(r, REAL_LABEL))
            fake_loss = F.binary_cross_entropy_with_logits(f, torch.zeros_like(f))
            loss = REAL_WEIGHT * real_loss + FAKE_WEIGHT * fake_loss
        elif self.loss == "trio-bce":
            real_loss = F.binary_cross_entropy_with_logits(r, torch.ones_like(r))
            loss = real_loss + F.binary_cross_entropy_with_logits(f, torch.zeros_like(f))
        elif self.loss in ("hinge-sn", "trio-hinge"):
            loss = F.relu(1 - r).mean() + F.relu(1 + f).mean()
        else:
            loss = f.mean() - r.mean()  # minus the Wasserstein estimate, which the critic raises
        if self.loss == "wgan-gp":
            loss = loss + gradient_penalty(critic, real, fake)
        loss.backward()
        return loss

    def generator_backward(self, critic: nn.Module, generator: nn.Module, fake: Tensor) -> Tensor:
        f = critic(fake)
        if self.loss in ("weighted-bce", "trio-bce"):
            loss = F.binary_cross_entropy_with_logits(f, torch.ones_like(f))
        else:
            loss = -f.mean()
        loss.backward()
        return loss


class Fast:
    def __init__(self, loss: str) -> None:
        self.loss, self.penalised = LOSSES[loss], loss == "wgan-gp"
        self.weights = {}
        if loss == "weighted-bce":
            self.weights = {"real_weight": REAL_WEIGHT, "fake_weight": FAKE_WEIGHT}

    def critic_backward(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        loss = gf.discriminator_loss(critic(real), critic(fake), self.loss, **self.weights)
        if self.penalised:
            how = gf.Differentiation(graph_cut="fast")
            loss = loss + gf.gradient_penalty(critic, real, fake, "wgan-gp", how=how)
        loss.backward()
        return loss

    def generator_backward(self, critic: nn.Module, generator: nn.Module, fake: Tensor) -> Tensor:
        loss = gf.generator_loss(critic(fake), self.loss)
        gf.generator_backward(loss, generator)  # no weight gradients of the critic
        return loss


def add_spectral_norm(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d):
        spectral_norm(layer)


def main(arguments: Sequence[str] | None = None) -> setting.Log:
    parser = setting.parser(__doc__, steps=300, batch=32, size=32)
    parser.add_argument("--loss", choices=LOSSES, default="wgan-gp")
    options = setting.start(parser, arguments)
    losses = {"reference": Reference, "fast": Fast}[options.losses](options.loss)
    crops = setting.photographs(options.size)
    critic, generator = build_critic(options.size, 32), build_generator(options.size, 32)
    if options.loss == "hinge-sn":
        critic.apply(add_spectral_norm)
    to_critic = torch.optim.Adam(critic.parameters(), 5e-4, betas=(0.0, 0.9))
    to_generator = torch.optim.Adam(generator.parameters(), 5e-4, betas=(0.0, 0.9))
    log = setting.Log(options.steps)

    for _ in range(options.steps):
        real = setting.draw(crops, options.batch)
        fake = generator(torch.randn(options.batch, LATENT_SIZE))
        to_critic.zero_grad()
        critic_loss = losses.critic_backward(critic, real, fake.detach())
        to_critic.step()
        if options.loss == "trio-wasserstein":
            with torch.no_grad():
                for parameter in critic.parameters():
                    parameter.clamp_(-CLIP, CLIP)

        to_generator.zero_grad()
        generator_loss = losses.generator_backward(critic, generator, fake)
        to_generator.step()
        log.add(critic=critic_loss, generator=generator_loss)

    panels = {
        "photographs": setting.images(setting.draw(crops, 64)),
        "generated": setting.images(generator(torch.randn(64, LATENT_SIZE))),
    }
    log.draw(options.picture, f"{options.loss}, {options.steps} steps, {options.losses}", panels)
    return log


if __name__ == "__main__":
    main()
