"""Tokenizers whose discriminator does not rest in the generator's step: LlamaGen."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganloss_fast.balancing.backward import balanced_backward
from ganloss_fast.bench import plain
from ganloss_fast.bench.steps.images import Distance
from ganloss_fast.bench.steps.training import Form, Training, forms, moved
from ganloss_fast.compat.llamagen import VQLoss, hinge_gen_loss, vanilla_d_loss
from ganloss_fast.steps import discriminator_backward

DISC_WEIGHT, COMMITMENT, MAX_NORM = 0.5, 0.25, 1.0

# ---- the networks ------------------------------------------------------------------------------


class _Codebook(nn.Module):
    """The nearest of its codes, all of norm 1; gradients pass straight through."""

    def __init__(self, codes: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, width)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """[B, width, H, W] as codes, and the losses of these, of commitment and of entropy."""
        x = F.normalize(x, dim=1)
        codes = F.normalize(self.embedding.weight, dim=1)
        alike = torch.einsum("bchw,nc->bhwn", x, codes)
        nearest = F.embedding(alike.argmax(-1), codes).movedim(-1, 1)
        of_codes = (nearest - x.detach()).square().mean()
        commitment = COMMITMENT * (nearest.detach() - x).square().mean()
        return x + (nearest - x).detach(), [of_codes, commitment, torch.zeros_like(commitment)]


class _Tokenizer(nn.Module):
    """A quarter of the resolution in codes, and back."""

    def __init__(self, width: int, codes: int = 64, code: int = 8) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, 2, 1),
            nn.GroupNorm(4, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, 2, 1),
            nn.GroupNorm(4, width),
            nn.SiLU(),
            nn.Conv2d(width, code, 1),
        )
        self.codebook = _Codebook(codes, code)
        self.decoder = nn.Sequential(
            nn.Conv2d(code, width, 3, padding=1),
            nn.GroupNorm(4, width),
            nn.SiLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(4, width),
            nn.SiLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
        )
        self.last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        codes, losses = self.codebook(self.encoder(images))
        return self.last(self.decoder(codes)), losses


def _patchgan(width: int) -> nn.Sequential:
    """That of pix2pix, with batch normalisation."""
    widths = [width, 2 * width, 4 * width, 8 * width]
    layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
    for k, (before, after) in enumerate(itertools.pairwise(widths)):
        stride = 2 if k < len(widths) - 2 else 1
        layers.append(nn.Conv2d(before, after, 4, stride, 1, bias=False))
        layers += [nn.BatchNorm2d(after), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, 1, 1))


# ---- LlamaGen ----------------------------------------------------------------------------------

LossOf = Callable[[Training, Sequence[Tensor], Tensor, int], Tensor]


def _last_layer(t: Training) -> Tensor:
    assert isinstance(t.generator, _Tokenizer)
    return t.generator.last.weight


def _distances(t: Training, fake: Tensor) -> Tensor:
    assert t.perceptual is not None
    real = t.batch["real"]
    distance: Tensor = F.l1_loss(real, fake) + t.perceptual(real, fake).mean()
    return distance


def _written_loss(t: Training, codebook: Sequence[Tensor], fake: Tensor, idx: int) -> Tensor:
    real = t.batch["real"]
    if idx == 1:
        logits = t.discriminator(real.detach()), t.discriminator(fake.detach())
        of_both: Tensor = DISC_WEIGHT * 0.5 * plain.discriminator_bce(*logits)
        return of_both
    distance = _distances(t, fake)
    of_fake = -t.discriminator(fake).mean()
    last = _last_layer(t)
    (of_distance,) = torch.autograd.grad(distance, last, retain_graph=True)
    (of_g,) = torch.autograd.grad(of_fake, last, retain_graph=True)
    weight = torch.clamp(torch.norm(of_distance) / (torch.norm(of_g) + 1e-4), 0.0, 1e4).detach()
    total: Tensor = distance + weight * DISC_WEIGHT * of_fake + sum(codebook)
    return total


def _drop_in_loss(discriminator_gradients: bool) -> LossOf:
    def loss_of(t: Training, codebook: Sequence[Tensor], fake: Tensor, idx: int) -> Tensor:
        module = VQLoss(
            disc_start=0,
            disc_loss="vanilla",
            disc_weight=DISC_WEIGHT,
            disc_adaptive_weight=True,
            reconstruction_loss="l1",
            perceptual_loss=t.perceptual,
            discriminator=t.discriminator,
            discriminator_gradients=discriminator_gradients,
        )
        loss: Tensor = module(codebook, t.batch["real"], fake, idx, 0, _last_layer(t))
        return loss

    return loss_of


def _clipped(optimizer: torch.optim.Optimizer, module: nn.Module) -> Tensor:
    nn.utils.clip_grad_norm_(module.parameters(), MAX_NORM)
    return moved(optimizer, module)


def llamagen_step(device: torch.device, size: int = 64, width: int = 32) -> dict[str, Form]:
    """Its trainer with ``l1``, ``vanilla`` and the adaptive weight. One reconstruction serves both
    steps. As written, the generator's backward walks through perceptual network, discriminator and
    last layer a second time, and fills gradients of the discriminator that nobody reads."""

    def step(t: Training, loss_of: LossOf) -> Sequence[Tensor]:
        t.of_generator.zero_grad()
        fake, codebook = t.generator(t.batch["real"])
        loss_of(t, codebook, fake, 0).backward()
        of_g = _clipped(t.of_generator, t.generator)
        t.of_discriminator.zero_grad()
        loss_of(t, codebook, fake, 1).backward()
        return _clipped(t.of_discriminator, t.discriminator), of_g

    def balanced(t: Training) -> Sequence[Tensor]:
        real = t.batch["real"]
        fake, codebook = t.generator(real)
        t.of_generator.zero_grad()
        balanced_backward(
            [_distances(t, fake), hinge_gen_loss(t.discriminator(fake))],
            fake,
            _last_layer(t),
            weights=[1.0, DISC_WEIGHT],
            extra_loss=torch.stack(codebook).sum(),
        )
        of_g = _clipped(t.of_generator, t.generator)
        t.of_discriminator.zero_grad()
        loss = vanilla_d_loss(t.discriminator(real), t.discriminator(fake.detach()))
        discriminator_backward(DISC_WEIGHT * loss, t.discriminator)
        return _clipped(t.of_discriminator, t.discriminator), of_g

    batch = {"real": torch.randn(2, 3, size, size)}
    return forms(
        Training(_Tokenizer(width), _patchgan(width), batch, Distance(width)),
        device,
        lambda t: step(t, _written_loss),
        lambda t: step(t, _drop_in_loss(True)),
        balanced,
        {"discriminator_gradients=False": lambda t: step(t, _drop_in_loss(False))},
    )
