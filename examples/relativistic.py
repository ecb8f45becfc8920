"""R3GAN's recipe on photographs: relativistic cross-entropy with R1 and R2 in every step.

    python -m examples.relativistic --losses fast --picture relativistic.png

Real and generated images meet in pairs, and both penalties are taken of the logits that the loss
has already: a critic step is two forward passes (Huang et al., 2024, The GAN is dead). With
ganloss_fast it is also one backward for the loss and both penalties.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ganloss_fast as gf
from examples import photographs, setting

GAMMA = 0.5


class Reference:
    """As people write it."""

    def critic_backward(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        real.requires_grad_()
        fake.requires_grad_()
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
        loss = F.softplus(-(critic(fake) - critic(real.detach()))).mean()
        loss.backward()
        return loss


class Fast:
    loss = gf.BCE(relativistic="paired")

    def critic_backward(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        real.requires_grad_()
        fake.requires_grad_()
        # The same logits, on a graph whose backward serves the loss and the penalty at once.
        real_logits, r1 = gf.logits_and_penalty(critic(real), real, gf.R1(GAMMA))
        fake_logits, r2 = gf.logits_and_penalty(critic(fake), fake, gf.R2(GAMMA))
        loss = gf.discriminator_loss(real_logits, fake_logits, self.loss) + r1 + r2
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
    return photographs.train(options, losses, "R3GAN", betas=(0.0, 0.99))


if __name__ == "__main__":
    main()
