"""The whole steps as workloads."""

from __future__ import annotations

from functools import partial

from ganloss_fast.bench.steps import (
    audio,
    classes,
    images,
    layouts,
    penalised,
    shared_logits,
    spectra,
    styles,
    tokenizers,
    translation,
    vocoders,
)
from ganloss_fast.bench.steps.training import Build, with_compiled_networks
from ganloss_fast.bench.workload import Workload

SECTION = "whole steps"


def _step(
    name: str,
    shapes: str,
    source: str,
    build: Build,
    quick: bool = False,
    compiles: bool = False,  # in about a minute, and to the same gradients
) -> Workload:
    return Workload(
        f"{name}: whole step",
        SECTION,
        with_compiled_networks(build) if compiles else build,
        shapes=shapes,
        direction="discriminator and generator step",
        source=source,
        quick=quick,
    )


WORKLOADS = (
    _step("HiFi-GAN", "1x1x2048", "jik876/hifi-gan", vocoders.hifigan_step),
    _step(
        "ParallelWaveGAN",
        "1x1x4096",
        "kan-bayashi/ParallelWaveGAN",
        audio.parallel_wavegan_step,
        compiles=True,
    ),
    _step(
        "DAC",
        "1x1x4096",
        "descriptinc/descript-audio-codec",
        audio.dac_step,
        compiles=True,
    ),
    _step("BigVGAN v2", "1x1x4096", "NVIDIA/BigVGAN", vocoders.bigvgan_step),
    _step("EnCodec", "2x1x4096", "facebookresearch/encodec", spectra.encodec_step),
    _step("taming", "2x3x64x64", "CompVis/taming-transformers", images.taming_step),
    _step("LlamaGen", "2x3x64x64", "FoundationVision/LlamaGen", tokenizers.llamagen_step),
    _step("ESRGAN", "2x3x64x64", "XPixelGroup/BasicSR", images.esrgan_step, compiles=True),
    _step("pix2pixHD", "1x6x128x128", "NVIDIA/pix2pixHD", translation.pix2pixhd_step),
    _step("SPADE", "2x8x64x64, 2x3x64x64", "NVlabs/SPADE", layouts.spade_step),
    _step("BigGAN", "4 of 16x3x32x32", "ajbrock/BigGAN-PyTorch", classes.biggan_step),
    _step(
        "StyleGAN2-ADA, main phases",
        "8x3x32x32",
        "NVlabs/stylegan2-ada-pytorch",
        partial(styles.stylegan2_ada_step, phases=("Gmain", "Dmain")),
    ),
    _step(
        "StyleGAN2-ADA, all phases",
        "8x3x32x32",
        "NVlabs/stylegan2-ada-pytorch",
        styles.stylegan2_ada_step,
    ),
    _step("R3GAN", "16x3x32x32", "brownvc/R3GAN", shared_logits.r3gan_step),
    _step("motion prior", "8192x210, 4096x210", "Toni-SM/skrl", shared_logits.motion_prior_step),
    _step("PyTorch-GAN wgan_gp", "64x784", "eriklindernoren/PyTorch-GAN", penalised.wgan_gp_step),
    _step("CTGAN", "500x262", "sdv-dev/CTGAN", penalised.ctgan_step, quick=True),
)
