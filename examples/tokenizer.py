"""A VQGAN-style tokenizer: the adversarial loss is a fixed share of the reconstruction.

    python -m examples.tokenizer --losses fast --picture tokens.png

The weight is a ratio of gradient norms at the decoder's last layer (Esser et al., 2021).
``balanced_backward`` finds it on the way of the one backward that the step needs anyway.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ganloss_fast as gf
from examples import setting
from examples.networks import ContentFeatures, patch_critic

CODES, CHANNELS = 256, 16
ADVERSARIAL = 0.2  # of the reconstruction's gradient


class Tokenizer(nn.Module):
    """Images [B, 3, S, S] to S/4 x S/4 tokens and back."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            *[nn.Conv2d(3, width, 4, 2, 1), nn.SiLU(), nn.Conv2d(width, width, 4, 2, 1)],
            *[nn.SiLU(), nn.Conv2d(width, CHANNELS, 3, 1, 1)],
        )
        self.codebook = nn.Embedding(CODES, CHANNELS)
        self.decoder = nn.Sequential(
            *[nn.Conv2d(CHANNELS, width, 3, 1, 1), nn.SiLU(), nn.Upsample(scale_factor=2)],
            *[nn.Conv2d(width, width, 3, 1, 1), nn.SiLU(), nn.Upsample(scale_factor=2)],
            *[nn.Conv2d(width, width, 3, 1, 1), nn.SiLU()],
        )
        self.last = nn.Conv2d(width, 3, 3, 1, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction, and the codebook's loss."""
        latents = self.encoder(images).movedim(1, -1)  # [B, S/4, S/4, CHANNELS]
        with torch.no_grad():
            tokens = torch.cdist(latents.flatten(0, 2), self.codebook.weight).argmin(1)
        codes = self.codebook(tokens).view_as(latents)
        loss = F.mse_loss(codes, latents.detach()) + 0.25 * F.mse_loss(latents, codes.detach())
        codes = latents + (codes - latents).detach()  # straight through
        return self.last(self.decoder(codes.movedim(-1, 1))), loss


class Reference:
    """As people write it."""

    def adaptive_weight(self, nll: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
        nll_gradient = torch.autograd.grad(nll, last_layer, retain_graph=True)[0]
        gradient = torch.autograd.grad(adversarial, last_layer, retain_graph=True)[0]
        weight = torch.norm(nll_gradient) / (torch.norm(gradient) + 1e-4)
        return torch.clamp(weight, 0.0, 1e4).detach()

    def tokenizer_backward(
        self, nll: Tensor, logits: Tensor, codebook: Tensor, found: Tensor, last_layer: Tensor
    ) -> Tensor:
        adversarial = -logits.mean()
        weight = ADVERSARIAL * self.adaptive_weight(nll, adversarial, last_layer)
        loss = nll + weight * adversarial + codebook
        loss.backward()
        return loss

    def critic_backward(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        loss = 0.5 * (F.relu(1 - critic(real)).mean() + F.relu(1 + critic(fake)).mean())
        loss.backward()
        return loss


class Fast:
    def tokenizer_backward(
        self, nll: Tensor, logits: Tensor, codebook: Tensor, found: Tensor, last_layer: Tensor
    ) -> Tensor:
        adversarial = gf.generator_loss(logits, "hinge")
        balance = gf.balanced_backward(
            [nll, adversarial],
            found,
            last_layer,
            weights=[1.0, ADVERSARIAL],
            extra_loss=codebook,
        )
        return balance.total

    def critic_backward(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        loss = gf.discriminator_loss(
            critic(real), critic(fake), "hinge", real_weight=0.5, fake_weight=0.5
        )
        loss.backward()
        return loss


def main(arguments: Sequence[str] | None = None) -> setting.Log:
    options = setting.start(setting.parser(__doc__, steps=300, batch=16, size=32), arguments)
    losses = {"reference": Reference, "fast": Fast}[options.losses]()
    crops = setting.photographs(options.size)
    tokenizer, critic, content = Tokenizer(), patch_critic(3), ContentFeatures()
    to_tokenizer = torch.optim.Adam(tokenizer.parameters(), 1e-3, betas=(0.5, 0.9))
    to_critic = torch.optim.Adam(critic.parameters(), 2e-4, betas=(0.5, 0.9))
    log = setting.Log(options.steps)

    for _ in range(options.steps):
        real = setting.draw(crops, options.batch)
        found, codebook = tokenizer(real)
        nll = F.l1_loss(found, real)
        for ours, theirs in zip(content(found), content(real)):
            nll = nll + F.l1_loss(ours, theirs)
        to_tokenizer.zero_grad()
        loss = losses.tokenizer_backward(nll, critic(found), codebook, found, tokenizer.last.weight)
        to_tokenizer.step()

        to_critic.zero_grad()
        critic_loss = losses.critic_backward(critic, real, found.detach())
        to_critic.step()
        log.add(critic=critic_loss, tokenizer=loss)

    real = setting.draw(crops, 64)
    panels = {
        "photographs": setting.images(real),
        "from their tokens": setting.images(tokenizer(real)[0]),
    }
    log.draw(options.picture, f"tokenizer, {options.steps} steps, {options.losses}", panels)
    return log


if __name__ == "__main__":
    main()
