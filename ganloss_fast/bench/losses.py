"""What is measured, as data: sizes, contenders, and the speed-ups that are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ganloss_fast import ops
from ganloss_fast._torch import tree_leaves
from ganloss_fast.bench import hifigan, plain
from ganloss_fast.bench.workload import (
    BUILT_IN,
    COMPILE,
    EAGER,
    FORWARD,
    LOSS_PASSES,
    MATCHING_PASSES,
    OURS,
    Contender,
    Workload,
    contenders,
    sizes,
)
from ganloss_fast.freezing import frozen
from ganloss_fast.losses.adversarial import discriminator_loss, generator_loss
from ganloss_fast.losses.matching import feature_matching_loss
from ganloss_fast.penalties.points import interpolate

# ---- discriminator losses ----------------------------------------------------------------------


def _discriminator(
    loss: str, shape: tuple[int, ...], with_built_in: bool
) -> Callable[[torch.device], dict[str, Contender]]:
    def build(device: torch.device) -> dict[str, Contender]:
        real = torch.randn(shape, device=device, requires_grad=True)
        fake = torch.randn(shape, device=device, requires_grad=True)
        return contenders(
            [real, fake],
            ours=lambda real, fake: discriminator_loss(real, fake, loss),
            eager=plain.DISCRIMINATOR_LOSSES[loss],
            built_in=F.mse_loss if with_built_in else None,
        )

    return build


ONE_OUTPUT = "discriminator loss, one output"

LOGIT_SIZES: dict[str, tuple[tuple[int, ...], dict[str, float]]] = {
    "64 logits": ((64, 1), {EAGER: 1.8, COMPILE: 3.5, BUILT_IN: 1.0}),
    "16x1x62x62": ((16, 1, 62, 62), {EAGER: 4.0, COMPILE: 3.5}),
    "1e6 logits": ((1_000_000,), {EAGER: 3.4, COMPILE: 2.7}),
}


def _logit_workloads() -> list[Workload]:
    rows = []
    for size, (shape, floors) in LOGIT_SIZES.items():
        for loss in ("hinge", "bce", "least_squares"):
            asked = dict(floors)
            if size == "1e6 logits" and loss == "least_squares":
                asked[COMPILE] = 1.1  # compiled, this one is already at memory speed
            build = _discriminator(loss, shape, with_built_in=BUILT_IN in floors)
            rows.append(
                Workload(
                    f"{loss}, {size}",
                    ONE_OUTPUT,
                    build,
                    asked,
                    shapes=sizes([shape, shape]),
                    bytes=LOSS_PASSES * 2 * 4 * torch.Size(shape).numel(),
                    quick=size != "1e6 logits",
                )
            )
    return rows


# ---- HiFi-GAN ----------------------------------------------------------------------------------


def _hifigan_discriminator(device: torch.device) -> dict[str, Contender]:
    def outputs() -> list[Tensor]:
        return [
            torch.randn(16, size, device=device, requires_grad=True)
            for size in hifigan.OUTPUT_SIZES
        ]

    return contenders(
        [outputs(), outputs()],
        ours=lambda real, fake: discriminator_loss(real, fake, "least_squares"),
        eager=plain.logged_list_discriminator_loss,
        compilable=plain.list_discriminator_loss,
    )


def _hifigan_feature_matching(device: torch.device) -> dict[str, Contender]:
    real = hifigan.feature_maps(device, batch=1)
    fake = [fmap.requires_grad_() for fmap in hifigan.feature_maps(device, batch=1)]
    return contenders(
        [real, fake],
        ours=lambda real, fake: feature_matching_loss(real, fake, weight=2.0),
        eager=plain.feature_loss,
    )


def _hifigan_generator_step(device: torch.device) -> dict[str, Contender]:
    """A whole generator step, B=1. The baseline backpropagates through everything it touched."""
    discriminators = hifigan.Discriminators().to(device)
    generator = hifigan.build_generator().to(device)
    noise = torch.randn(1, 1, hifigan.SAMPLES, device=device)
    audio = torch.randn(1, 1, hifigan.SAMPLES, device=device)

    def finish(loss: Tensor) -> Sequence[Tensor]:
        loss.backward()
        gradients = [p.grad for p in generator.parameters() if p.grad is not None]
        generator.zero_grad(set_to_none=True)
        discriminators.zero_grad(set_to_none=True)
        return [loss.detach(), *gradients]

    def ours() -> Sequence[Tensor]:
        with frozen(discriminators):
            real, fake = discriminators(audio), discriminators(generator(noise))
            logits = [maps[-1] for maps in fake]
            loss = generator_loss(logits, "least_squares")
            loss = loss + feature_matching_loss(real, fake, weight=2.0)
        return finish(loss)

    def eager() -> Sequence[Tensor]:
        real, fake = discriminators(audio), discriminators(generator(noise))
        real_maps, fake_maps = tree_leaves(real), tree_leaves(fake)
        loss = plain.list_generator_loss([maps[-1] for maps in fake])
        return finish(loss + plain.feature_loss(real_maps, fake_maps))

    return {OURS: ours, EAGER: eager}


# ---- gradient penalty --------------------------------------------------------------------------


def _interpolate(device: torch.device) -> dict[str, Contender]:
    images = [torch.randn(IMAGES, device=device) for _ in range(2)]
    alpha = torch.rand(16, 1, 1, 1, device=device)
    return contenders([*images, alpha], ours=interpolate, eager=plain.interpolate)


def _norm_penalty(shape: Sequence[int]) -> Callable[[torch.device], dict[str, Contender]]:
    def build(device: torch.device) -> dict[str, Contender]:
        gradient = torch.randn(shape, device=device, requires_grad=True)
        return contenders(
            [gradient],
            ours=lambda gradient: ops.norm_penalty(gradient, "two_sided", 1.0, 1.0)[0],
            eager=plain.penalty,
        )

    return build


HIFIGAN = "HiFi-GAN discriminators"
PENALTY = "gradient penalty (interpolate: forward only)"
IMAGES = (16, 3, 256, 256)
THUMBNAILS = (8, 3, 32, 32)  # below 128 KiB, from which on malloc asks the system for pages
_MAPS = 7_705_000  # elements of one clip's feature maps

WORKLOADS: tuple[Workload, ...] = (
    *_logit_workloads(),
    Workload(
        "8 outputs, B=16",
        HIFIGAN,
        _hifigan_discriminator,
        {EAGER: 5.5, COMPILE: 2.3},
        shapes=sizes([(16, size) for size in hifigan.OUTPUT_SIZES]),
        bytes=LOSS_PASSES * 2 * 4 * 16 * sum(hifigan.OUTPUT_SIZES),
        source="jik876/hifi-gan",
        quick=True,
    ),
    Workload(
        "feature matching, 54 maps, B=1",
        HIFIGAN,
        _hifigan_feature_matching,
        {EAGER: 3.5, COMPILE: 1.4},
        shapes="54 maps, 7.7M elements, of each side",
        bytes=MATCHING_PASSES * 4 * _MAPS,
        source="jik876/hifi-gan",
    ),
    Workload(
        "generator step, frozen, B=1",
        HIFIGAN,
        _hifigan_generator_step,
        {EAGER: 2.0},
        shapes=f"1x1x{hifigan.SAMPLES}",
        source="jik876/hifi-gan",
    ),
    Workload(
        "interpolate 16x3x256x256",
        PENALTY,
        _interpolate,
        shapes=sizes([IMAGES, IMAGES]),
        direction=FORWARD,
        bytes=3 * 4 * torch.Size(IMAGES).numel(),
    ),
    *(
        Workload(
            f"norm penalty, {sizes([shape])}",
            PENALTY,
            _norm_penalty(shape),
            shapes=sizes([shape]),
            bytes=3 * 4 * torch.Size(shape).numel(),
            quick=shape == THUMBNAILS,
        )
        for shape in (THUMBNAILS, IMAGES)
    ),
)
