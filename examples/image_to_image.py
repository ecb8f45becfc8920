"""Image to image, in pairs: grey photographs get their colours back.

    python -m examples.image_to_image --recipe pix2pix --picture colours.png

pix2pix   a conditional critic, cross-entropy, and 100 times L1 (Isola et al., 2017)
content   as super-resolution tutorials have it: L1 + content + adversarial
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ganloss_fast as gf
from examples import setting
from examples.networks import ContentFeatures, Translator, patch_critic

# Of L1, content and adversarial loss in the generator's total.
WEIGHTS = {"pix2pix": (100.0, 0.0, 1.0), "content": (1.0, 1.0, 0.005)}


class Reference:
    """As people write it."""

    def __init__(self, recipe: str) -> None:
        self.weights, self.content = WEIGHTS[recipe], ContentFeatures()

    def critic_backward(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        real_logits, fake_logits = critic(real), critic(fake)
        real_loss = F.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
        fake_loss = F.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
        loss = (real_loss + fake_loss) * 0.5
        loss.backward()
        return loss

    def generator_backward(
        self, critic: nn.Module, generator: nn.Module, grey: Tensor, fake: Tensor, target: Tensor
    ) -> Tensor:
        pixel, content, adversarial = self.weights
        logits = critic(torch.cat([grey, fake], 1))
        loss = adversarial * F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
        loss = loss + pixel * F.l1_loss(fake, target)
        if content:
            for ours, theirs in zip(self.content(fake), self.content(target)):
                loss = loss + content * F.l1_loss(ours, theirs)
        loss.backward()
        return loss


class Fast:
    def __init__(self, recipe: str) -> None:
        self.weights, self.content = WEIGHTS[recipe], ContentFeatures()

    def critic_backward(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        loss = gf.discriminator_loss(
            critic(real), critic(fake), "bce", real_weight=0.5, fake_weight=0.5
        )
        loss.backward()
        return loss

    def generator_backward(
        self, critic: nn.Module, generator: nn.Module, grey: Tensor, fake: Tensor, target: Tensor
    ) -> Tensor:
        pixel, content, adversarial = self.weights
        logits = critic(torch.cat([grey, fake], 1))
        loss = gf.generator_loss(logits, "bce", weight=adversarial)
        loss = loss + pixel * F.l1_loss(fake, target)
        if content:
            maps = self.content(target), self.content(fake)
            loss = loss + gf.feature_matching_loss(*maps, weight=content)
        gf.generator_backward(loss, generator)  # no weight gradients of the critic
        return loss


def main(arguments: Sequence[str] | None = None) -> setting.Log:
    parser = setting.parser(__doc__, steps=300, batch=8, size=64)
    parser.add_argument("--recipe", choices=WEIGHTS, default="pix2pix")
    options = setting.start(parser, arguments)
    losses = {"reference": Reference, "fast": Fast}[options.losses](options.recipe)
    crops = setting.photographs(options.size)
    critic, generator = patch_critic(1 + 3), Translator(1)
    to_critic = torch.optim.Adam(critic.parameters(), 2e-4, betas=(0.5, 0.999))
    to_generator = torch.optim.Adam(generator.parameters(), 1e-3, betas=(0.5, 0.999))
    log = setting.Log(options.steps)

    for _ in range(options.steps):
        target = setting.draw(crops, options.batch)
        grey = target.mean(1, keepdim=True)
        fake = generator(grey)
        real_pair = torch.cat([grey, target], 1)
        fake_pair = torch.cat([grey, fake.detach()], 1)
        to_critic.zero_grad()
        critic_loss = losses.critic_backward(critic, real_pair, fake_pair)
        to_critic.step()

        to_generator.zero_grad()
        generator_loss = losses.generator_backward(critic, generator, grey, fake, target)
        to_generator.step()
        log.add(critic=critic_loss, generator=generator_loss)

    target = setting.draw(crops, 64)
    grey = target.mean(1, keepdim=True)
    panels = {
        "grey": setting.images(grey.expand(-1, 3, -1, -1)),
        "coloured": setting.images(generator(grey)),
        "photographs": setting.images(target),
    }
    title = f"{options.recipe}, {options.steps} steps, {options.losses}"
    log.draw(options.picture, title, panels)
    return log


if __name__ == "__main__":
    main()
