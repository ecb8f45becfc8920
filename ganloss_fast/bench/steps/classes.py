"""Images of a given class: BigGAN."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ganloss_fast.bench.steps.training import Form, Training, forms, moved
from ganloss_fast.compat import biggan

CLASSES, NOISE = 10, 64

# ---- the networks ------------------------------------------------------------------------------


def _convolution(before: int, after: int, kernel: int = 3) -> nn.Module:
    return spectral_norm(nn.Conv2d(before, after, kernel, padding="same"))


class _Norm(nn.Module):
    """Normalised by the batch, then scaled and shifted as the class says."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width, affine=False)
        self.both = spectral_norm(nn.Linear(NOISE, 2 * width, bias=False))

    def forward(self, x: Tensor, of_class: Tensor) -> Tensor:
        scale, shift = self.both(of_class)[:, :, None, None].chunk(2, dim=1)
        found: Tensor = self.norm(x) * (1 + scale) + shift
        return found


class _Growing(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(_Norm(width) for _ in range(2))
        self.layers = nn.ModuleList(_convolution(width, width) for _ in range(2))
        self.skip = _convolution(width, width, 1)

    def forward(self, x: Tensor, of_class: Tensor) -> Tensor:
        through = F.interpolate(F.relu(self.norms[0](x, of_class)), scale_factor=2.0)
        through = self.layers[0](through)
        through = self.layers[1](F.relu(self.norms[1](through, of_class)))
        found: Tensor = through + self.skip(F.interpolate(x, scale_factor=2.0))
        return found


class _Generator(nn.Module):
    """From noise and a class to 32x32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.shared = nn.Embedding(CLASSES, NOISE)
        self.first = spectral_norm(nn.Linear(NOISE, 16 * width))
        self.blocks = nn.ModuleList(_Growing(width) for _ in range(3))
        self.last = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), _convolution(width, 3))

    def forward(self, noise: Tensor, classes: Tensor) -> Tensor:
        of_class = self.shared(classes)
        x = self.first(noise).unflatten(1, (-1, 4, 4))
        for block in self.blocks:
            x = block(x, of_class)
        return torch.tanh(self.last(x))


class _Shrinking(nn.Module):
    """The first one of a discriminator sees pixels, and no ReLU before them."""

    def __init__(self, before: int, after: int, is_first: bool, halves: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList([_convolution(before, after), _convolution(after, after)])
        self.skip = _convolution(before, after, 1)
        self.is_first, self.halves = is_first, halves

    def forward(self, x: Tensor) -> Tensor:
        through = self.layers[0](x if self.is_first else F.relu(x))
        through = self.layers[1](F.relu(through))
        found: Tensor = through + self.skip(x)
        return F.avg_pool2d(found, 2) if self.halves else found


class _Projection(nn.Module):
    """What it says of images, and of how they go with their classes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            _Shrinking(3, width, is_first=True, halves=True),
            _Shrinking(width, width, is_first=False, halves=True),
            _Shrinking(width, width, is_first=False, halves=False),
            _Shrinking(width, width, is_first=False, halves=False),
        )
        self.linear = spectral_norm(nn.Linear(width, 1))
        self.embedding = spectral_norm(nn.Embedding(CLASSES, width))

    def forward(self, images: Tensor, classes: Tensor) -> Tensor:
        found = F.relu(self.blocks(images)).sum((2, 3))
        along = (self.embedding(classes) * found).sum(1, keepdim=True)
        logits: Tensor = self.linear(found) + along
        return logits


# ---- BigGAN ------------------------------------------------------------------------------------


def _written_dis(dis_fake: Tensor, dis_real: Tensor) -> tuple[Tensor, Tensor]:
    return F.relu(1.0 - dis_real).mean(), F.relu(1.0 + dis_fake).mean()


def _written_gen(dis_fake: Tensor) -> Tensor:
    return -dis_fake.mean()


def biggan_step(
    device: torch.device, width: int = 16, batch: int = 16, discriminator_steps: int = 4
) -> dict[str, Form]:
    """Several steps of the discriminator to one of the generator, as for CIFAR-10, each with noise
    and classes of its own. The side whose turn it is not rests, and the generator keeps no graph in
    the discriminator's steps, so that nothing is computed for nobody."""

    def step(
        t: Training,
        of_both: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
        of_generator: Callable[[Tensor], Tensor],
    ) -> Sequence[Tensor]:
        images, classes = t.batch["images"], t.batch["classes"]

        def drawn() -> tuple[Tensor, Tensor]:
            noise = torch.randn(batch, NOISE, device=images.device)
            return noise, torch.randint(CLASSES, (batch,), device=images.device)

        t.discriminator.requires_grad_(True)
        t.generator.requires_grad_(False)
        found = []
        for real, of_real in zip(images.split(batch), classes.split(batch)):
            t.of_discriminator.zero_grad()
            noise, of_fake = drawn()
            with torch.no_grad():
                fake = t.generator(noise, of_fake)
            logits = t.discriminator(torch.cat([fake, real]), torch.cat([of_fake, of_real]))
            on_real, on_fake = of_both(*logits.split(batch))
            (on_real + on_fake).backward()
            found.append(moved(t.of_discriminator, t.discriminator))
        t.discriminator.requires_grad_(False)
        t.generator.requires_grad_(True)
        t.of_generator.zero_grad()
        noise, of_fake = drawn()
        of_generator(t.discriminator(t.generator(noise, of_fake), of_fake)).backward()
        return [*found, moved(t.of_generator, t.generator)]

    reals = discriminator_steps * batch
    tensors = {
        "images": torch.randn(reals, 3, 32, 32).tanh(),
        "classes": torch.randint(CLASSES, (reals,)),
    }
    return forms(
        Training(_Generator(width), _Projection(width), tensors),
        device,
        lambda t: step(t, _written_dis, _written_gen),
        lambda t: step(t, biggan.discriminator_loss, biggan.generator_loss),
    )
