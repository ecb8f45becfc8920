"""Image to image: pix2pixHD."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganloss_fast.bench.steps.scales import Maps, Scale, Scales
from ganloss_fast.bench.steps.training import Form, Training, forms, moved
from ganloss_fast.compat import pix2pixhd
from ganloss_fast.losses.adversarial import generator_loss
from ganloss_fast.losses.matching import feature_matching_loss
from ganloss_fast.steps import discriminator_backward, generator_backward

LAYERS = 3  # of a discriminator, with stride
FEATURES = 10.0  # the weight of feature matching


def _scale(channels: int, width: int) -> Scale:
    """One PatchGAN."""
    found = Scale()
    for k in range(LAYERS + 1):
        wider = width << min(k, 3)
        layers: list[nn.Module] = [nn.Conv2d(channels, wider, 4, 2 if k < LAYERS else 1, 2)]
        if k > 0:
            layers.append(nn.InstanceNorm2d(wider))
        found.append(nn.Sequential(*layers, nn.LeakyReLU(0.2)))
        channels = wider
    found.append(nn.Conv2d(channels, 1, 4, 1, 2))
    return found


def pix2pixhd_step(
    device: torch.device, size: int = 128, width: int = 16, scales: int = 2
) -> dict[str, Form]:
    """Labels beside the image in every discriminator, least squares, feature matching. As written,
    generated images pass the discriminators twice, detached and not, and the generator's backward
    fills gradients of the discriminators that nobody reads."""
    of_map = FEATURES * 4.0 / (LAYERS + 1) / scales

    def written_loss(predictions: Maps, is_real: bool) -> Tensor:
        loss = torch.zeros((), device=predictions[0][-1].device)
        for prediction in predictions:
            logits = prediction[-1]
            loss = loss + F.mse_loss(logits, torch.full_like(logits, float(is_real)))
        return loss

    def step(t: Training, loss_of: Callable[..., Tensor]) -> Sequence[Tensor]:
        labels, real = t.batch["labels"], t.batch["real"]
        fake = t.generator(labels)
        of_fake = loss_of(t.discriminator(torch.cat([labels, fake.detach()], 1)), False)
        reals = t.discriminator(torch.cat([labels, real], 1))
        of_real = loss_of(reals, True)
        fakes = t.discriminator(torch.cat([labels, fake], 1))
        loss = loss_of(fakes, True)
        for scale in range(scales):
            for k in range(len(fakes[scale]) - 1):
                loss = loss + of_map * F.l1_loss(fakes[scale][k], reals[scale][k].detach())
        t.of_generator.zero_grad()
        loss.backward()
        of_g = moved(t.of_generator, t.generator)
        t.of_discriminator.zero_grad()
        ((of_fake + of_real) * 0.5).backward()
        return moved(t.of_discriminator, t.discriminator), of_g

    def shared(t: Training) -> Sequence[Tensor]:
        labels, real = t.batch["labels"], t.batch["real"]
        fake = t.generator(labels)
        fakes = t.discriminator(torch.cat([labels, fake], 1))
        reals = t.discriminator(torch.cat([labels, real], 1))
        loss = generator_loss([maps[-1] for maps in fakes], "least_squares")
        loss = loss + feature_matching_loss(reals, fakes, include_last=False, weight=of_map)
        t.of_generator.zero_grad()
        generator_backward(loss, t.generator, shared_critic=t.discriminator)
        of_g = moved(t.of_generator, t.generator)
        t.of_discriminator.zero_grad()
        loss = (criterion(fakes, False) + criterion(reals, True)) * 0.5
        discriminator_backward(loss, t.discriminator, shares_forward=True)
        return moved(t.of_discriminator, t.discriminator), of_g

    criterion = pix2pixhd.GANLoss()
    generator = nn.Sequential(
        nn.Conv2d(3, width, 7, padding=3),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(2 * width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(2 * width, width, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(width, 3, 7, padding=3),
    )
    batch = {name: torch.randn(1, 3, size, size) for name in ("labels", "real")}
    return forms(
        Training(generator, Scales(_scale(6, width) for _ in range(scales)), batch),
        device,
        lambda t: step(t, written_loss),
        lambda t: step(t, criterion),
        shared,
    )
