"""Tokenizers and super-resolution: the adaptive weight of taming-transformers, and ESRGAN."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganloss_fast.balancing.backward import balanced_backward
from ganloss_fast.bench import plain
from ganloss_fast.bench.steps.training import Form, Training, forms, moved
from ganloss_fast.compat import basicsr as compat_basicsr
from ganloss_fast.compat import taming as compat_taming
from ganloss_fast.losses.adversarial import discriminator_loss, generator_loss
from ganloss_fast.losses.table import BCE
from ganloss_fast.steps import discriminator_backward, generator_backward


def _patchgan(width: int) -> nn.Sequential:
    """Without normalisation, whose running statistics would see one forward instead of two."""
    layers: list[nn.Module] = []
    channels = 3
    for k in range(3):
        layers += [nn.Conv2d(channels, width << k, 4, 2, 1), nn.LeakyReLU(0.2)]
        channels = width << k
    return nn.Sequential(*layers, nn.Conv2d(channels, 1, 4, 1, 1))


def _convolutions(width: int, count: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU()]
    for _ in range(count):
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(width, 3, 3, padding=1))


# ---- taming-transformers -----------------------------------------------------------------------


class Distance(nn.Module):
    """A stand-in for LPIPS: fixed, and a distance [B, 1, 1, 1] for each image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = _convolutions(width, 4).requires_grad_(False)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        apart: Tensor = (self.features(one) - self.features(other)).square()
        return apart.mean(dim=(1, 2, 3), keepdim=True)


@contextlib.contextmanager
def _resting(module: nn.Module) -> Iterator[None]:
    """As Lightning toggles the parameters of the optimizers whose turn it is not."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


def taming_step(device: torch.device, size: int = 64, width: int = 32) -> dict[str, Form]:
    """The loss module of VQGAN in Lightning's two calls, with an adaptive weight. As written, the
    perceptual network runs in the discriminator's step as well."""
    weight = 0.8

    def last_layer(t: Training) -> Tensor:
        *_, found, _ = t.generator.parameters()
        return found

    def nll_of(t: Training, real: Tensor, fake: Tensor) -> Tensor:
        assert t.perceptual is not None
        nll: Tensor = ((real - fake).abs() + t.perceptual(real, fake)).mean()
        return nll

    def written_loss(t: Training, real: Tensor, fake: Tensor, idx: int) -> Tensor:
        nll = nll_of(t, real, fake)
        if idx == 1:
            logits = t.discriminator(real), t.discriminator(fake.detach())
            of_both: Tensor = 0.5 * plain.discriminator_hinge(*logits)
            return of_both
        of_fake = -t.discriminator(fake).mean()
        last = last_layer(t)
        (of_nll,) = torch.autograd.grad(nll, last, retain_graph=True)
        (of_g,) = torch.autograd.grad(of_fake, last, retain_graph=True)
        ratio = torch.clamp(torch.norm(of_nll) / (torch.norm(of_g) + 1e-4), 0.0, 1e4)
        total: Tensor = nll + ratio.detach() * weight * of_fake
        return total

    def drop_in_loss(t: Training, real: Tensor, fake: Tensor, idx: int) -> Tensor:
        module = compat_taming.VQLPIPSWithDiscriminator(
            disc_start=0,
            disc_weight=weight,
            perceptual_loss=t.perceptual,
            discriminator=t.discriminator,
        )
        result: tuple[Tensor, object]
        result = module(real.new_zeros(()), real, fake, idx, 0, last_layer(t))
        return result[0]

    def step(t: Training, loss_of: Callable[..., Tensor]) -> Sequence[Tensor]:
        real = t.batch["real"]
        with _resting(t.discriminator):
            loss = loss_of(t, real, t.generator(real), 0)
            t.of_generator.zero_grad()
            loss.backward()
        found = moved(t.of_generator, t.generator)
        with _resting(t.generator):
            loss = loss_of(t, real, t.generator(real), 1)
            t.of_discriminator.zero_grad()
            loss.backward()
        return moved(t.of_discriminator, t.discriminator), found

    def balanced(t: Training) -> Sequence[Tensor]:
        real = t.batch["real"]
        fake = t.generator(real)
        losses = [nll_of(t, real, fake), generator_loss(t.discriminator(fake), "hinge")]
        t.of_generator.zero_grad()
        balanced_backward(losses, fake, last_layer(t), weights=[1.0, weight])
        found = moved(t.of_generator, t.generator)
        with torch.no_grad():
            fake = t.generator(real)
        loss = compat_taming.hinge_d_loss(t.discriminator(real), t.discriminator(fake))
        t.of_discriminator.zero_grad()
        discriminator_backward(loss, t.discriminator)
        return moved(t.of_discriminator, t.discriminator), found

    batch = {"real": torch.randn(2, 3, size, size)}
    networks = _convolutions(width, 4), _patchgan(width)
    return forms(
        Training(*networks, batch, Distance(width)),
        device,
        lambda t: step(t, written_loss),
        lambda t: step(t, drop_in_loss),
        balanced,
    )


# ---- ESRGAN ------------------------------------------------------------------------------------


def esrgan_step(device: torch.device, size: int = 64, width: int = 32) -> dict[str, Form]:
    """BasicSR's model: five forwards of the discriminator, for two different inputs."""

    def written_loss(logits: Tensor, is_real: bool, is_disc: bool = False) -> Tensor:
        target = torch.full_like(logits, float(is_real))
        return F.binary_cross_entropy_with_logits(logits, target)

    def step(t: Training, loss_of: Callable[..., Tensor]) -> Sequence[Tensor]:
        real = t.batch["real"]
        t.discriminator.requires_grad_(False)
        t.of_generator.zero_grad()
        fake = t.generator(t.batch["small"])
        of_real, of_fake = t.discriminator(real).detach(), t.discriminator(fake)
        adversarial = loss_of(of_real - of_fake.mean(), False)
        adversarial = adversarial + loss_of(of_fake - of_real.mean(), True)
        (F.l1_loss(fake, real) + 0.1 * adversarial / 2).backward()
        found = moved(t.of_generator, t.generator)
        t.discriminator.requires_grad_(True)
        t.of_discriminator.zero_grad()
        of_fake = t.discriminator(fake).detach()
        of_real = t.discriminator(real)
        (loss_of(of_real - of_fake.mean(), True, is_disc=True) * 0.5).backward()
        of_fake = t.discriminator(fake.detach())
        loss = loss_of(of_fake - of_real.detach().mean(), False, is_disc=True) * 0.5
        loss.backward()
        return moved(t.of_discriminator, t.discriminator), found

    def shared(t: Training) -> Sequence[Tensor]:
        real, fake = t.batch["real"], t.generator(t.batch["small"])
        of_real, of_fake = t.discriminator(real), t.discriminator(fake)
        t.of_generator.zero_grad()
        adversarial = generator_loss(
            of_fake, BCE(relativistic="average"), real=of_real.detach(), weight=0.05
        )
        loss = F.l1_loss(fake, real) + adversarial
        generator_backward(loss, t.generator, shared_critic=t.discriminator)
        found = moved(t.of_generator, t.generator)
        t.of_discriminator.zero_grad()
        loss = discriminator_loss(
            of_real,
            of_fake,
            BCE(relativistic="average", detach_means=True),
            real_weight=0.5,
            fake_weight=0.5,
        )
        discriminator_backward(loss, t.discriminator, shares_forward=True)
        return moved(t.of_discriminator, t.discriminator), found

    criterion = compat_basicsr.GANLoss("vanilla")
    batch = {"real": torch.randn(2, 3, size, size), "small": torch.randn(2, 3, size, size)}
    training = Training(_convolutions(width // 2, 2), _patchgan(width), batch)
    return forms(
        training,
        device,
        lambda t: step(t, written_loss),
        lambda t: step(t, criterion),
        shared,
    )
