"""The trainings: which step on which data, and how its losses are judged on data held out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ganloss_fast.bench import plain
from ganloss_fast.bench.steps import images, penalised, vocoders
from ganloss_fast.bench.steps.training import Form, Training
from ganloss_fast.bench.train import speech
from ganloss_fast.bench.train.data import Source

Batch = dict[str, Tensor]
SAMPLES = 2048  # of a clip, a quarter of a second
CROP = 64


@dataclass(frozen=True)
class Run:
    """One training."""

    name: str
    source: str  # the codebase whose step it is
    unit: str  # what the data is counted in
    samples: int  # of one step
    shapes: str
    rate: float  # of Adam
    load: Callable[[Source], Tensor]
    build: Callable[[torch.device], dict[str, Form]]
    batch: Callable[[Tensor], Batch]  # of real samples; what is random comes from torch's generator
    losses: Callable[[Training], tuple[Tensor, Tensor]]  # the discriminator's, the generator's


# ---- batches -----------------------------------------------------------------------------------


def _spoken(real: Tensor) -> Batch:
    return {"noise": speech.log_mel(real), "audio": real}


def _blurred(real: Tensor) -> Batch:
    """A quarter of the resolution, brought back to the same size."""
    small = F.avg_pool2d(real, 4)
    return {"real": real, "small": F.interpolate(small, scale_factor=4, mode="bilinear")}


def _itself(real: Tensor) -> Batch:
    return {"real": real}


def _with_noise(real: Tensor) -> Batch:
    """What the losses are judged on; the step draws its own."""
    return {"real": real, "noise": torch.randn(len(real), penalised.NOISE)}


# ---- losses, as the codebases write them -------------------------------------------------------


def _hifigan_losses(t: Training) -> tuple[Tensor, Tensor]:
    real, fake = t.batch["audio"], t.generator(t.batch["noise"])
    assert isinstance(t.discriminator, vocoders.Families)
    judged = t.discriminator.apart(real, fake)
    of_generator = vocoders.total(vocoders.as_written_g, judged) + 45 * F.l1_loss(fake, real)
    return vocoders.total(vocoders.as_written_d, judged), of_generator


def _esrgan_losses(t: Training) -> tuple[Tensor, Tensor]:
    real, fake = t.batch["real"], t.generator(t.batch["small"])
    of_real, of_fake = t.discriminator(real), t.discriminator(fake)
    adversarial = plain.relativistic_average_bce(of_fake, of_real)
    of_generator = F.l1_loss(fake, real) + 0.1 * adversarial
    return plain.relativistic_average_bce(of_real, of_fake), of_generator


def _taming_losses(t: Training) -> tuple[Tensor, Tensor]:
    real = t.batch["real"]
    fake = t.generator(real)
    of_discriminator = 0.5 * plain.discriminator_hinge(t.discriminator(real), t.discriminator(fake))
    return of_discriminator, F.l1_loss(fake, real)


def _wgan_gp_losses(t: Training) -> tuple[Tensor, Tensor]:
    of_fake = t.discriminator(t.generator(t.batch["noise"]))
    of_real = t.discriminator(t.batch["real"])
    return plain.discriminator_wasserstein(of_real, of_fake), plain.generator_linear(of_fake)


RUNS = (
    Run(
        "vocoder on speech-like sound: HiFi-GAN, two of its periods",
        "jik876/hifi-gan",
        unit="clips",
        samples=4,
        shapes=f"4x1x{SAMPLES}",
        rate=2e-4,
        load=lambda source: source.speech(SAMPLES),
        build=lambda device: vocoders.hifigan_step(
            device, SAMPLES, vocoders.narrow(16), speech.build_generator()
        ),
        batch=_spoken,
        losses=_hifigan_losses,
    ),
    Run(
        "super-resolution of photographs: ESRGAN",
        "XPixelGroup/BasicSR",
        unit="images",
        samples=4,
        shapes=f"4x3x{CROP}x{CROP}",
        rate=1e-4,
        load=lambda source: source.photographs(CROP),
        build=images.esrgan_step,
        batch=_blurred,
        losses=_esrgan_losses,
    ),
    Run(
        "tokenizer of photographs: taming, adaptive weight",
        "CompVis/taming-transformers",
        unit="images",
        samples=2,
        shapes=f"2x3x{CROP}x{CROP}",
        rate=1e-4,
        load=lambda source: source.photographs(CROP),
        build=images.taming_step,
        batch=_itself,
        losses=_taming_losses,
    ),
    Run(
        "digits: PyTorch-GAN wgan_gp",
        "eriklindernoren/PyTorch-GAN",
        unit="images",
        samples=64,
        shapes="64x784",
        rate=2e-4,
        load=lambda source: source.digits(),
        build=penalised.wgan_gp_step,
        batch=_with_noise,
        losses=_wgan_gp_losses,
    ),
)
