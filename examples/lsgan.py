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
from examples import photographs, setting


class Reference:
    """As people write it."""

    def critic_backward(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        real_logits, fake_logits = critic(real), critic(fake)
        real_loss = F.mse_loss(real_logits, torch.ones_like(real_logits))
        fake_loss = F.mse_loss(fake_logits, torch.zeros_like(fake_logits))
        loss = 0.5 * (real_loss + fake_loss)
        loss.backward()
        return loss

    def generator_backward(
        self, critic: nn.Module, generator: nn.Module, real: Tensor, fake: Tensor
    ) -> Tensor:
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

    def generator_backward(
        self, critic: nn.Module, generator: nn.Module, real: Tensor, fake: Tensor
    ) -> Tensor:
        loss = gf.generator_loss(critic(fake), "least_squares")
        gf.generator_backward(loss, generator)  # no weight gradients of the critic
        return loss


def main(arguments: Sequence[str] | None = None) -> setting.Log:
    options = setting.start(setting.parser(__doc__, steps=300, batch=32, size=32), arguments)
    losses = {"reference": Reference, "fast": Fast}[options.losses]()
    return photographs.train(
        options, losses, "LSGAN", critic_rate=2e-4, generator_rate=5e-4, betas=(0.5, 0.999)
    )


if __name__ == "__main__":
    main()
