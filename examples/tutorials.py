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
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

import ganloss_fast as gf
from examples import photographs, setting

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

    def generator_backward(
        self, critic: nn.Module, generator: nn.Module, real: Tensor, fake: Tensor
    ) -> Tensor:
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

    def generator_backward(
        self, critic: nn.Module, generator: nn.Module, real: Tensor, fake: Tensor
    ) -> Tensor:
        loss = gf.generator_loss(critic(fake), self.loss)
        gf.generator_backward(loss, generator)  # no weight gradients of the critic
        return loss


def add_spectral_norm(critic: nn.Module) -> None:
    for layer in critic.modules():
        if isinstance(layer, nn.Conv2d):
            spectral_norm(layer)


def clip(critic: nn.Module) -> None:
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.clamp_(-CLIP, CLIP)


def main(arguments: Sequence[str] | None = None) -> setting.Log:
    parser = setting.parser(__doc__, steps=300, batch=32, size=32)
    parser.add_argument("--loss", choices=LOSSES, default="wgan-gp")
    options = setting.start(parser, arguments)
    losses = {"reference": Reference, "fast": Fast}[options.losses](options.loss)
    steps: dict[str, Any] = {}
    if options.loss == "hinge-sn":
        steps["prepare"] = add_spectral_norm
    if options.loss == "trio-wasserstein":
        steps["after_critic_step"] = clip
    return photographs.train(options, losses, options.loss, **steps)


if __name__ == "__main__":
    main()
