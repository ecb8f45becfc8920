"""The losses of well-known codebases, on the shapes that their own models give."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ganloss_fast.bench import plain
from ganloss_fast.bench.shapes import OUTPUTS, Outputs, Shape
from ganloss_fast.bench.workload import (
    LOSS_PASSES,
    MATCHING_PASSES,
    Contender,
    Workload,
    contenders,
    elements,
    sizes,
)
from ganloss_fast.losses.adversarial import discriminator_loss
from ganloss_fast.losses.matching import feature_matching_loss
from ganloss_fast.losses.table import BCE, Loss
from ganloss_fast.penalties.gradient_penalty import penalty_from_grads
from ganloss_fast.penalties.table import R1, WGANGP, NormPenalty

SECTION = "real workloads: discriminator loss"
MATCHING = "real workloads: feature matching"
PENALTIES = "real workloads: penalty of a gradient at hand"
Pair = Callable[[Tensor, Tensor], Tensor]
Build = Callable[[torch.device], dict[str, Contender]]

# codebase -> our loss and its weight, and the loss of one output as it is written there
LOSSES: dict[str, tuple[str | Loss, float, Pair]] = {
    "PatchGAN 256": ("least_squares", 1.0, plain.discriminator_least_squares),
    "PatchGAN 512": ("least_squares", 1.0, plain.discriminator_least_squares),
    "pix2pixHD 1024x512": ("least_squares", 1.0, plain.discriminator_least_squares),
    "SPADE 256": ("hinge", 1.0, plain.discriminator_hinge),
    "HiFi-GAN": ("least_squares", 1.0, plain.discriminator_least_squares),
    "BigVGAN v2, periods": ("least_squares", 1.0, plain.discriminator_least_squares),
    "EnCodec": ("hinge", 1.0, plain.discriminator_hinge),
    "DAC": ("least_squares", 1.0, plain.discriminator_least_squares),
    "BigGAN 128": ("hinge", 1.0, plain.discriminator_hinge),
    "WGAN-GP CIFAR": ("wasserstein", 1.0, plain.discriminator_wasserstein),
    "CTGAN": ("wasserstein", 1.0, plain.discriminator_wasserstein),
    "Motion prior": ("least_squares", 1.0, plain.discriminator_least_squares),
    "R3GAN": (BCE(relativistic="paired"), 1.0, plain.relativistic_pairing),
    "ESRGAN": (
        BCE(relativistic="average", detach_means=True),
        0.5,
        plain.relativistic_average_bce,
    ),
    "Real-ESRGAN": ("bce", 1.0, plain.discriminator_bce),
}

# name -> shape of the gradient, our penalty, the penalty as people write it, where it is from
GRADIENTS: dict[str, tuple[Shape, NormPenalty, Callable[[Tensor], Tensor], str]] = {
    "StyleGAN 1024: R1": ((4, 3, 1024, 1024), R1(gamma=2.0), plain.squared_norm, "stylegan3"),
    "R3GAN 64: R1": ((64, 3, 64, 64), R1(gamma=2.0), plain.squared_norm, "brownvc/R3GAN"),
    "WGAN-GP CIFAR: penalty": (
        (64, 3, 32, 32),
        WGANGP(weight=1.0),
        plain.penalty,
        "igul222/improved_wgan_training",
    ),
    "CTGAN: penalty": ((50, 1500), WGANGP(weight=1.0), plain.penalty, "sdv-dev/CTGAN"),
    "Motion prior: penalty": (
        (4096, 210),
        R1(gamma=2.0),
        plain.squared_norm,
        "AMP (Peng et al., 2021)",
    ),
}


def _drawn(shapes: Sequence[Shape], device: torch.device, learns: bool = True) -> list[Tensor]:
    return [torch.randn(shape, device=device, requires_grad=learns) for shape in shapes]


def _loss(outputs: Outputs, loss: str | Loss, weight: float, written: Pair) -> Build:
    def in_turn(reals: Sequence[Tensor], fakes: Sequence[Tensor]) -> Tensor:
        total = written(reals[0], fakes[0])
        for real, fake in zip(reals[1:], fakes[1:]):
            total = total + written(real, fake)
        return total

    def build(device: torch.device) -> dict[str, Contender]:
        return contenders(
            [_drawn(outputs.logits, device), _drawn(outputs.logits, device)],
            ours=lambda real, fake: discriminator_loss(
                real, fake, loss, real_weight=weight, fake_weight=weight
            ),
            eager=in_turn,
        )

    return build


def _matching(outputs: Outputs) -> Build:
    def build(device: torch.device) -> dict[str, Contender]:
        return contenders(
            [_drawn(outputs.maps, device, learns=False), _drawn(outputs.maps, device)],
            ours=lambda real, fake: feature_matching_loss(real, fake, weight=2.0),
            eager=plain.feature_loss,
        )

    return build


def _penalty(shape: Shape, penalty: NormPenalty, written: Callable[[Tensor], Tensor]) -> Build:
    def build(device: torch.device) -> dict[str, Contender]:
        return contenders(
            [torch.randn(shape, device=device).div_(shape[-1]).requires_grad_()],
            ours=lambda gradient: penalty_from_grads(gradient, penalty),
            eager=written,
        )

    return build


def _of_losses() -> list[Workload]:
    return [
        Workload(
            f"{name}: discriminator loss",
            SECTION,
            _loss(OUTPUTS[name], *LOSSES[name]),
            shapes=sizes(OUTPUTS[name].logits),
            bytes=LOSS_PASSES * 2 * 4 * elements(OUTPUTS[name].logits),
            source=OUTPUTS[name].source,
            quick=name in ("DAC", "SPADE 256", "ESRGAN"),
        )
        for name in LOSSES
    ]


def _of_maps() -> list[Workload]:
    return [
        Workload(
            f"{name}: feature matching, {len(outputs.maps)} maps",
            MATCHING,
            _matching(outputs),
            shapes=f"{len(outputs.maps)} maps, {elements(outputs.maps) / 1e6:.1f}M elements",
            bytes=MATCHING_PASSES * 4 * elements(outputs.maps),
            source=outputs.source,
            quick=name == "SPADE 256",
        )
        for name, outputs in OUTPUTS.items()
        if outputs.maps
    ]


def _of_gradients() -> list[Workload]:
    return [
        Workload(
            name,
            PENALTIES,
            _penalty(shape, penalty, written),
            shapes=sizes([shape]),
            bytes=3 * 4 * elements([shape]),
            source=source,
            quick=elements([shape]) < 1_000_000,
        )
        for name, (shape, penalty, written, source) in GRADIENTS.items()
    ]


WORKLOADS = (*_of_losses(), *_of_maps(), *_of_gradients())
