"""Images of a given layout: SPADE."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ganloss_fast.bench.steps.scales import Maps, Scale, Scales
from ganloss_fast.bench.steps.training import Form, Training, forms, moved
from ganloss_fast.compat.spade import GANLoss
from ganloss_fast.losses.matching import feature_matching_loss
from ganloss_fast.steps import discriminator_backward, generator_backward

SCALES, LAYERS = 2, 4  # discriminators, and the layers of each before the last one
FEATURES = 10.0  # the weight of feature matching
CLASSES = 8

LossOf = Callable[[Maps, bool, bool], Tensor]  # the side, and whether the discriminator learns

# ---- the networks ------------------------------------------------------------------------------


def _scale(channels: int, width: int) -> Scale:
    """One PatchGAN, its inner layers under spectral and instance norm."""
    found = Scale()
    for k in range(LAYERS):
        wider, stride = width << min(k, 3), 2 if k < LAYERS - 1 else 1
        layer: nn.Module = nn.Conv2d(channels, wider, 4, stride, 2, bias=k == 0)
        if k > 0:
            layer = nn.Sequential(spectral_norm(layer), nn.InstanceNorm2d(wider))
        found.append(nn.Sequential(layer, nn.LeakyReLU(0.2)))
        channels = wider
    found.append(nn.Conv2d(channels, 1, 4, 1, 2))
    return found


class _Modulation(nn.Module):
    """Normalised by the batch, then scaled and shifted pixel by pixel as the layout says."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width, affine=False)
        self.shared = nn.Sequential(nn.Conv2d(CLASSES, hidden, 3, padding=1), nn.ReLU())
        self.both = nn.Conv2d(hidden, 2 * width, 3, padding=1)

    def forward(self, x: Tensor, layout: Tensor) -> Tensor:
        layout = F.interpolate(layout, size=x.shape[2:], mode="nearest")
        scale, shift = self.both(self.shared(layout)).chunk(2, dim=1)
        found: Tensor = self.norm(x) * (1 + scale) + shift
        return found


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.modulations = nn.ModuleList(_Modulation(width, width) for _ in range(2))
        self.layers = nn.ModuleList(
            spectral_norm(nn.Conv2d(width, width, 3, padding=1)) for _ in range(2)
        )

    def forward(self, x: Tensor, layout: Tensor) -> Tensor:
        through = x
        for modulation, layer in zip(self.modulations, self.layers):
            through = layer(F.leaky_relu(modulation(through, layout), 0.2))
        return x + through


class _Generator(nn.Module):
    """From the layout in an eighth of the resolution on, doubled after every block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(CLASSES, width, 3, padding=1)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(4))
        self.last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, layout: Tensor) -> Tensor:
        x = self.first(F.interpolate(layout, scale_factor=0.125, mode="nearest"))
        for k, block in enumerate(self.blocks):
            x = block(x if k == 0 else F.interpolate(x, scale_factor=2.0), layout)
        return torch.tanh(self.last(F.leaky_relu(x, 0.2)))


# ---- SPADE -------------------------------------------------------------------------------------


def _written_loss(predictions: Maps, is_real: bool, for_discriminator: bool) -> Tensor:
    loss = torch.zeros((), device=predictions[0][-1].device)
    for prediction in predictions:
        logits = prediction[-1]
        if for_discriminator:
            margin = (logits if is_real else -logits) - 1
            loss = loss - torch.min(margin, torch.zeros_like(margin)).mean()
        else:
            loss = loss - logits.mean()
    return loss / len(predictions)


def _written_matching(fakes: Maps, reals: Maps) -> Tensor:
    loss = torch.zeros((), device=fakes[0][0].device)
    for of_fake, of_real in zip(fakes, reals):
        for fake, real in zip(of_fake[:-1], of_real[:-1]):
            loss = loss + F.l1_loss(fake, real.detach()) * FEATURES / SCALES
    return loss


def spade_step(
    device: torch.device, size: int = 64, width: int = 16, batch: int = 2
) -> dict[str, Form]:
    """Hinge and feature matching, without its VGG loss. Generated and real images pass the
    discriminators as one batch, which keeps their spectral norms in step: in the generator's step
    the backward walks through the real half as well, with zeros."""

    def judged(t: Training, layout: Tensor, fake: Tensor) -> tuple[Maps, Maps]:
        both = [torch.cat([layout, images], dim=1) for images in (fake, t.batch["real"])]
        found = t.discriminator(torch.cat(both))
        halves = [[fmap.chunk(2) for fmap in maps] for maps in found]
        fakes, reals = ([[pair[side] for pair in maps] for maps in halves] for side in (0, 1))
        return fakes, reals

    def step(t: Training, loss_of: LossOf, helpers: bool) -> Sequence[Tensor]:
        layout = t.batch["layout"]
        t.of_generator.zero_grad()
        fakes, reals = judged(t, layout, t.generator(layout))
        loss = loss_of(fakes, True, False)
        if helpers:
            weight = FEATURES / SCALES
            matching = feature_matching_loss(reals, fakes, include_last=False, weight=weight)
            generator_backward((loss + matching).mean(), t.generator)
        else:
            (loss + _written_matching(fakes, reals)).mean().backward()
        of_g = moved(t.of_generator, t.generator)
        t.of_discriminator.zero_grad()
        with torch.no_grad():
            fake = t.generator(layout)
        fakes, reals = judged(t, layout, fake.detach().requires_grad_())
        loss = (loss_of(fakes, False, True) + loss_of(reals, True, True)).mean()
        if helpers:
            discriminator_backward(loss, t.discriminator)
        else:
            loss.backward()
        return moved(t.of_discriminator, t.discriminator), of_g

    criterion = GANLoss("hinge")
    labels = torch.randint(CLASSES, (batch, size // 8, size // 8)).repeat_interleave(8, 1)
    layout = F.one_hot(labels.repeat_interleave(8, 2), CLASSES).movedim(-1, 1).float()
    generator = _Generator(width)
    discriminators = Scales(_scale(CLASSES + 3, width) for _ in range(SCALES))
    tensors = {"layout": layout, "real": torch.randn(batch, 3, size, size).tanh()}
    return forms(
        Training(generator, discriminators, tensors),
        device,
        lambda t: step(t, _written_loss, helpers=False),
        lambda t: step(t, criterion, helpers=False),
        lambda t: step(t, criterion, helpers=True),
    )
