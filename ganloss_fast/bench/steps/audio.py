"""Vocoders and codecs whose discriminators take one audio a call: ParallelWaveGAN, DAC."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganloss_fast.bench import hifigan, plain
from ganloss_fast.bench.steps.training import Form, Training, forms, moved
from ganloss_fast.compat import dac as compat_dac
from ganloss_fast.compat import parallel_wavegan as compat_pwg
from ganloss_fast.steps import discriminator_backward, generator_backward

Maps = list[list[Tensor]]


def noise_and_audio(samples: int) -> dict[str, Tensor]:
    return {"noise": torch.randn(1, 1, samples), "audio": torch.randn(1, 1, samples)}


def logits_of(maps: Maps) -> list[Tensor]:
    return [of_one[-1] for of_one in maps]


class Periods(nn.Module):
    """Two narrow period discriminators: the maps of each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(hifigan.PeriodDiscriminator(p, width) for p in (2, 3))

    def forward(self, audio: Tensor) -> Maps:
        return [part(audio) for part in self.parts]


# ---- ParallelWaveGAN ---------------------------------------------------------------------------


def _mean_mse(logits: Sequence[Tensor], target: float) -> Tensor:
    loss = torch.zeros((), device=logits[0].device)
    for output in logits:
        loss = loss + F.mse_loss(output, torch.full_like(output, target))
    return loss / len(logits)


def _mean_matching(real_maps: Maps, fake_maps: Maps) -> Tensor:
    loss = torch.zeros((), device=real_maps[0][0].device)
    for reals, fakes in zip(real_maps, fake_maps):
        of_one = torch.zeros_like(loss)
        for real, fake in zip(reals[:-1], fakes[:-1]):
            of_one = of_one + F.l1_loss(fake, real.detach())
        loss = loss + of_one / (len(reals) - 1)
    return loss / len(real_maps)


def parallel_wavegan_step(
    device: torch.device, samples: int = 4096, width: int = 16
) -> dict[str, Form]:
    """The generator first; the discriminator does not move before its own step."""

    def written(t: Training) -> Sequence[Tensor]:
        audio = t.batch["audio"]
        fake = t.generator(t.batch["noise"])
        fake_maps = t.discriminator(fake)
        with torch.no_grad():
            real_maps = t.discriminator(audio)
        adversarial = _mean_mse(logits_of(fake_maps), 1.0)
        matching = _mean_matching(real_maps, fake_maps)
        t.of_generator.zero_grad()
        (adversarial + 2 * matching).backward()
        of_g = moved(t.of_generator, t.generator)
        with torch.no_grad():
            fake = t.generator(t.batch["noise"])
        real, fakes = logits_of(t.discriminator(audio)), logits_of(t.discriminator(fake.detach()))
        of_real = _mean_mse(real, 1.0)
        of_fake = _mean_mse(fakes, 0.0)
        t.of_discriminator.zero_grad()
        (of_real + of_fake).backward()
        return moved(t.of_discriminator, t.discriminator), of_g

    for_generator = compat_pwg.GeneratorAdversarialLoss()
    for_discriminator = compat_pwg.DiscriminatorAdversarialLoss()
    for_maps = compat_pwg.FeatureMatchLoss()

    def with_compat(t: Training, helpers: bool) -> Sequence[Tensor]:
        audio = t.batch["audio"]
        fake = t.generator(t.batch["noise"])
        fake_maps = t.discriminator(fake)
        with torch.set_grad_enabled(helpers):  # with its graph, for the other step too
            real_maps = t.discriminator(audio)
        loss = for_generator(fake_maps) + 2 * for_maps(fake_maps, real_maps)
        t.of_generator.zero_grad()
        if helpers:
            generator_backward(loss, t.generator)
        else:
            loss.backward()
        of_g = moved(t.of_generator, t.generator)
        with torch.no_grad():
            fake = t.generator(t.batch["noise"])
        reals = real_maps if helpers else t.discriminator(audio)
        of_real, of_fake = for_discriminator(t.discriminator(fake.detach()), reals)
        t.of_discriminator.zero_grad()
        if helpers:
            discriminator_backward(of_real + of_fake, t.discriminator)
        else:
            (of_real + of_fake).backward()
        return moved(t.of_discriminator, t.discriminator), of_g

    training = Training(hifigan.build_generator(), Periods(width), noise_and_audio(samples))
    return forms(
        training,
        device,
        written,
        partial(with_compat, helpers=False),
        partial(with_compat, helpers=True),
    )


# ---- DAC ---------------------------------------------------------------------------------------


def dac_step(device: torch.device, samples: int = 4096, width: int = 16) -> dict[str, Form]:
    """The discriminator first; real maps are detached as published."""

    def written(t: Training) -> Sequence[Tensor]:
        audio, fake = t.batch["audio"], t.generator(t.batch["noise"])
        t.of_discriminator.zero_grad()
        fakes = t.discriminator(fake.detach())
        reals = t.discriminator(audio)
        loss = torch.zeros((), device=audio.device)
        for f, r in zip(logits_of(fakes), logits_of(reals)):
            loss = loss + torch.mean(f**2) + torch.mean((1 - r) ** 2)
        loss.backward()
        of_d = moved(t.of_discriminator, t.discriminator)
        t.of_generator.zero_grad()
        fakes, reals = t.discriminator(fake), t.discriminator(audio)
        adversarial = plain.list_generator_loss(logits_of(fakes))
        matching = torch.zeros((), device=audio.device)
        for of_fake, of_real in zip(fakes, reals):
            for f, r in zip(of_fake[:-1], of_real[:-1]):
                matching = matching + F.l1_loss(f, r.detach())
        (adversarial + 2 * matching + 15 * F.l1_loss(fake, audio)).backward()
        return of_d, moved(t.of_generator, t.generator)

    def with_compat(t: Training, helpers: bool) -> Sequence[Tensor]:
        audio, fake = t.batch["audio"], t.generator(t.batch["noise"])
        criterion = compat_dac.GANLoss(t.discriminator, freeze=helpers, together=helpers)
        t.of_discriminator.zero_grad()
        criterion.discriminator_loss(fake, audio).backward()
        of_d = moved(t.of_discriminator, t.discriminator)
        t.of_generator.zero_grad()
        adversarial, matching = criterion.generator_loss(fake, audio)
        (adversarial + 2 * matching + 15 * F.l1_loss(fake, audio)).backward()
        return of_d, moved(t.of_generator, t.generator)

    training = Training(hifigan.build_generator(), Periods(width), noise_and_audio(samples))
    return forms(
        training,
        device,
        written,
        partial(with_compat, helpers=False),
        partial(with_compat, helpers=True),
    )
