"""What is measured, as data: sizes, contenders, and the speed-ups that are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves

import ganloss_fast
from benchmarks import hifigan, plain
from benchmarks.contenders import BUILT_IN, COMPILE, EAGER, OURS, Contender, Inputs, Workload
from benchmarks.penalty_workloads import workloads as penalty_workloads
from ganloss_fast import ops


def differentiated(function: Callable[..., Tensor], inputs: Inputs) -> Contender:
    """The forward pass, and the backward pass to the inputs that require a gradient."""
    leaves = [tensor for tensor in tree_leaves(inputs) if tensor.requires_grad]

    def work() -> Sequence[Tensor]:
        value = function(*inputs)
        if not leaves:
            return [value]
        return [value, *torch.autograd.grad(value, leaves)]

    return work


def contenders(
    inputs: Inputs,
    ours: Callable[..., Tensor],
    eager: Callable[..., Tensor],
    compilable: Callable[..., Tensor] | None = None,
    built_in: Callable[..., Tensor] | None = None,
) -> dict[str, Contender]:
    """The same inputs for everybody. ``compilable`` is eager where compile would break it."""
    compiled = torch.compile(compilable or eager, dynamic=False)
    functions = {OURS: ours, EAGER: eager, COMPILE: compiled}
    if built_in is not None:
        functions[BUILT_IN] = built_in
    return {name: differentiated(function, inputs) for name, function in functions.items()}


# ---- discriminator losses ----------------------------------------------------------------------


def _discriminator(
    loss: str, shape: tuple[int, ...], with_built_in: bool
) -> Callable[[torch.device], dict[str, Contender]]:
    def build(device: torch.device) -> dict[str, Contender]:
        real = torch.randn(shape, device=device, requires_grad=True)
        fake = torch.randn(shape, device=device, requires_grad=True)
        return contenders(
            [real, fake],
            ours=lambda real, fake: ganloss_fast.discriminator_loss(real, fake, loss),
            eager=plain.DISCRIMINATOR_LOSSES[loss],
            built_in=F.mse_loss if with_built_in else None,
        )

    return build


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
            rows.append(Workload(f"{loss}, {size}", "discriminator loss, one output", build, asked))
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
        ours=lambda real, fake: ganloss_fast.discriminator_loss(real, fake, "least_squares"),
        eager=plain.logged_list_discriminator_loss,
        compilable=plain.list_discriminator_loss,
    )


def _hifigan_feature_matching(device: torch.device) -> dict[str, Contender]:
    real = hifigan.feature_maps(device, batch=1)
    fake = [fmap.requires_grad_() for fmap in hifigan.feature_maps(device, batch=1)]
    return contenders(
        [real, fake],
        ours=lambda real, fake: ganloss_fast.feature_matching_loss(real, fake, weight=2.0),
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
        with ganloss_fast.frozen(discriminators):
            real, fake = discriminators(audio), discriminators(generator(noise))
            logits = [maps[-1] for maps in fake]
            loss = ganloss_fast.generator_loss(logits, "least_squares")
            loss = loss + ganloss_fast.feature_matching_loss(real, fake, weight=2.0)
        return finish(loss)

    def eager() -> Sequence[Tensor]:
        real, fake = discriminators(audio), discriminators(generator(noise))
        real_maps, fake_maps = tree_leaves(real), tree_leaves(fake)
        loss = plain.list_generator_loss([maps[-1] for maps in fake])
        return finish(loss + plain.feature_loss(real_maps, fake_maps))

    return {OURS: ours, EAGER: eager}


# ---- gradient penalty --------------------------------------------------------------------------


def _interpolate(device: torch.device) -> dict[str, Contender]:
    images = [torch.randn(16, 3, 256, 256, device=device) for _ in range(2)]
    alpha = torch.rand(16, 1, 1, 1, device=device)
    return contenders([*images, alpha], ours=ganloss_fast.interpolate, eager=plain.interpolate)


def _norm_penalty(device: torch.device) -> dict[str, Contender]:
    gradient = torch.randn(16, 3, 256, 256, device=device, requires_grad=True)
    return contenders(
        [gradient],
        ours=lambda gradient: ops.norm_penalty(gradient, "two_sided", 1.0, 1.0)[0],
        eager=plain.penalty,
    )


HIFIGAN = "HiFi-GAN discriminators"
PENALTY = "gradient penalty (interpolate: forward only)"

WORKLOADS: tuple[Workload, ...] = (
    *_logit_workloads(),
    Workload(
        "8 outputs, B=16",
        HIFIGAN,
        _hifigan_discriminator,
        {EAGER: 5.5, COMPILE: 2.3},
    ),
    Workload(
        "feature matching, 54 maps, B=1",
        HIFIGAN,
        _hifigan_feature_matching,
        {EAGER: 3.5, COMPILE: 1.4},
    ),
    Workload(
        "generator step, frozen, B=1",
        HIFIGAN,
        _hifigan_generator_step,
        {EAGER: 2.0},
    ),
    Workload("interpolate 16x3x256x256", PENALTY, _interpolate),
    Workload("norm penalty, 16x3x256x256", PENALTY, _norm_penalty),
    *penalty_workloads(),
)
