"""Vocoders whose discriminators judge real and generated audio in one call: HiFi-GAN, BigVGAN."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganloss_fast.bench import plain
from ganloss_fast.bench.hifigan import build_generator
from ganloss_fast.bench.steps.audio import Maps, noise_and_audio
from ganloss_fast.bench.steps.spectra import FRAMES, spectral_distance
from ganloss_fast.bench.steps.training import Form, Training, forms, moved
from ganloss_fast.compat import bigvgan, hifigan
from ganloss_fast.steps import generator_backward

Judged = tuple[list[Tensor], list[Tensor], Maps, Maps]  # logits of real and fake, maps of both


class Families(nn.Module):
    """The discriminators of a vocoder, in families that judge pairs."""

    def __init__(self, *families: nn.Module) -> None:
        super().__init__()
        self.families = nn.ModuleList(families)

    def forward(self, real: Tensor, fake: Tensor) -> list[Judged]:
        return [family(real, fake) for family in self.families]

    def apart(self, real: Tensor, fake: Tensor) -> list[Judged]:
        """As published: each discriminator runs on real audio, then on generated."""
        return [_judged_apart(family, real, fake) for family in self.families]

    def detach_real(self, wanted: bool) -> None:
        for family in self.families:
            family.detach_real = wanted  # type: ignore[assignment]


def _judged_apart(family: Any, real: Tensor, fake: Tensor) -> Judged:
    y_d_rs, y_d_gs, fmap_rs, fmap_gs = [], [], [], []
    for d, y, y_hat in zip(family.discriminators, family.seen(real), family.seen(fake)):
        (y_d_r, fmap_r), (y_d_g, fmap_g) = d(y), d(y_hat)
        y_d_rs.append(y_d_r)
        y_d_gs.append(y_d_g)
        fmap_rs.append(fmap_r)
        fmap_gs.append(fmap_g)
    return y_d_rs, y_d_gs, fmap_rs, fmap_gs


def narrow(width: int) -> Families:
    """Two period discriminators."""
    return Families(
        bigvgan.MultiPeriodDiscriminator(
            SimpleNamespace(
                mpd_reshapes=(2, 3),
                use_spectral_norm=False,
                discriminator_channel_mult=width / 32,
            )
        )
    )


def as_written_d(reals: list[Tensor], fakes: list[Tensor], *maps: Maps) -> Tensor:
    return plain.logged_list_discriminator_loss(reals, fakes)


def as_written_g(
    reals: list[Tensor], fakes: list[Tensor], real_maps: Maps, fake_maps: Maps
) -> Tensor:
    flat = [[fmap for maps in side for fmap in maps] for side in (real_maps, fake_maps)]
    return plain.list_generator_loss(fakes) + plain.feature_loss(*flat)


def _drop_in_d(reals: list[Tensor], fakes: list[Tensor], *maps: Maps) -> Tensor:
    return hifigan.discriminator_loss(reals, fakes)[0]


def _drop_in_g(
    reals: list[Tensor], fakes: list[Tensor], real_maps: Maps, fake_maps: Maps
) -> Tensor:
    return hifigan.generator_loss(fakes)[0] + hifigan.feature_loss(real_maps, fake_maps)


def total(loss_of: Callable[..., Tensor], judged: Sequence[Judged]) -> Tensor:
    """Over all families."""
    return torch.stack([loss_of(*of_family) for of_family in judged]).sum()


def _forms(
    device: torch.device,
    training: Training,
    distance: Callable[[Tensor, Tensor], Tensor],
    move: Callable[[torch.optim.Optimizer, nn.Module], Tensor],
) -> dict[str, Form]:
    """``distance``: of generated from real audio, in the generator's loss; ``move``: the step of
    an optimizer."""

    def step(
        t: Training, compat: bool = True, detach_real: bool = False, helpers: bool = False
    ) -> Sequence[Tensor]:
        network = t.discriminator
        assert isinstance(network, Families)
        network.detach_real(detach_real)
        judge = network if compat else network.apart
        audio, fake = t.batch["audio"], t.generator(t.batch["noise"])
        t.of_discriminator.zero_grad()
        total(_drop_in_d if compat else as_written_d, judge(audio, fake.detach())).backward()
        of_d = move(t.of_discriminator, network)
        t.of_generator.zero_grad()
        loss = total(_drop_in_g if compat else as_written_g, judge(audio, fake))
        loss = loss + distance(fake, audio)
        if helpers:
            generator_backward(loss, t.generator)
        else:
            loss.backward()
        return of_d, move(t.of_generator, t.generator)

    return forms(
        training,
        device,
        partial(step, compat=False),
        step,
        partial(step, detach_real=True, helpers=True),
        {"detach_real": partial(step, detach_real=True)},
    )


def hifigan_step(
    device: torch.device,
    samples: int = 2048,
    discriminators: Families | None = None,
    generator: nn.Module | None = None,
) -> dict[str, Form]:
    """The published discriminators, five periods and three scales, and a small generator."""
    if discriminators is None:
        discriminators = Families(
            hifigan.MultiPeriodDiscriminator(), hifigan.MultiScaleDiscriminator()
        )
    training = Training(generator or build_generator(), discriminators, noise_and_audio(samples))
    return _forms(device, training, lambda fake, audio: 45 * F.l1_loss(fake, audio), moved)


MAX_NORM, MEL_WEIGHT = 500.0, 15.0


def _clipped(optimizer: torch.optim.Optimizer, network: nn.Module) -> Tensor:
    for part in network.families if isinstance(network, Families) else [network]:
        nn.utils.clip_grad_norm_(part.parameters(), MAX_NORM)
    return moved(optimizer, network)


def bigvgan_step(device: torch.device, samples: int = 4096, width: int = 8) -> dict[str, Form]:
    """Two narrow families, the second of which is the one by resolutions (constant-Q transforms
    take its place in v2's configuration). Gradients are clipped."""
    configuration = SimpleNamespace(
        resolutions=[(frame, frame // 4, frame) for frame in FRAMES],
        use_spectral_norm=False,
        discriminator_channel_mult=2 * width / 32,
    )
    discriminators = Families(
        *narrow(width).families, bigvgan.MultiResolutionDiscriminator(configuration)
    )
    training = Training(build_generator(), discriminators, noise_and_audio(samples))
    return _forms(
        device,
        training,
        lambda fake, audio: MEL_WEIGHT * spectral_distance(fake, audio),
        _clipped,
    )
