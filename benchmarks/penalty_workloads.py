"""Gradient penalties on whole critics, against the penalty as WGAN-GP's codebases write it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import critics
import torch
from torch import Tensor, nn

import ganloss_fast
from ganloss_fast.bench import plain
from ganloss_fast.bench.workload import COMPILE, EAGER, OURS, Contender, Workload, sizes
from ganloss_fast.graph_cut.second_order import GraphCut

SECTION = "critics: gradient penalty, and WGAN-GP step"
COMPILED_SECTION = "compiled, with compile_options()"

# name: critic, shape of its samples, speed-ups asked for of the penalty and of the whole step
CRITICS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], float, float]] = {
    "DCGAN": (lambda: critics.dcgan(32, 64), (4, 3, 64, 64), 1.5, 1.12),
    "ResNet, spectral norm": (
        lambda: critics.SpectralResNet(32, 32),
        (8, 3, 32, 32),
        1.3,
        1.1,
    ),
    "HiFi-GAN period": (lambda: critics.HifiGanPeriod(16), (2, 1, 8192), 1.5, 1.15),
    "StyleGAN2": (lambda: critics.StyleGan2(16, 64), (4, 3, 64, 64), 1.15, 1.05),
    "PatchGAN, InstanceNorm": (lambda: critics.patchgan(32), (4, 3, 64, 64), 0.97, 0.97),
}
SOURCES = {
    "DCGAN": "Radford et al., 2016; Gulrajani et al., 2017",
    "ResNet, spectral norm": "Miyato et al., 2018",
    "HiFi-GAN period": "jik876/hifi-gan, narrow",
    "StyleGAN2": "Karras et al., 2020, narrow",
    "PatchGAN, InstanceNorm": "Isola et al., 2017, narrow",
}
ONE_FORWARD_FLOOR = 1.25
COMPILED_FLOORS = (1.4, 1.08)
WEIGHT = 10.0

Step = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]


def _interpolated(real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    return plain.interpolate(real, fake, alpha.view(-1, *[1] * (real.dim() - 1)))


def stock_penalty(critic: nn.Module, real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    x_hat = _interpolated(real, fake, alpha).requires_grad_(True)
    logits = critic(x_hat)
    (gradient,) = torch.autograd.grad(logits, x_hat, torch.ones_like(logits), create_graph=True)
    return WEIGHT * plain.penalty(gradient)


def functional_penalty(critic: nn.Module, real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    """The same for torch.compile, which cannot trace autograd.grad."""
    x_hat = _interpolated(real, fake, alpha)
    return WEIGHT * plain.penalty(torch.func.grad(lambda x: critic(x).sum())(x_hat))


def our_penalty(graph_cut: GraphCut) -> Step:
    return lambda critic, real, fake, alpha: ganloss_fast.gradient_penalty(
        critic,
        real,
        fake,
        weight=WEIGHT,
        alpha=alpha,
        how=ganloss_fast.Differentiation(graph_cut=graph_cut),
    )


def wasserstein_step(penalty: Step) -> Step:
    return lambda critic, real, fake, alpha: (
        critic(fake).mean() - critic(real).mean() + penalty(critic, real, fake, alpha)
    )


def one_forward_step(penalty: Step) -> Step:
    """Fake and real in one forward; the penalty apart, which is cheaper than all three in one."""

    def step(critic: nn.Module, real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
        fake_logits, real_logits = critic(torch.cat([fake, real])).chunk(2)
        return fake_logits.mean() - real_logits.mean() + penalty(critic, real, fake, alpha)

    return step


def inputs_of(shape: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    real, fake = torch.randn(2, *shape, device=device).unbind()
    return real, fake, torch.rand(shape[0], device=device)


def trained(critic: nn.Module, step: Step, inputs: Sequence[Tensor]) -> Contender:
    """A backward into the critic's parameters. Their gradients are compared as one vector: that of
    a bias before a normalisation is nothing but rounding."""

    def work() -> Sequence[Tensor]:
        critic.zero_grad()
        value = step(critic, *inputs)
        value.backward()
        gradients = [p.grad for p in critic.parameters() if p.grad is not None]
        return [value.detach(), torch.cat([gradient.flatten() for gradient in gradients])]

    return work


def _workload(
    name: str,
    critic: str,
    steps: Callable[[], dict[str, Step]],
    floors: dict[str, float],
    section: str = SECTION,
) -> Workload:
    def build(device: torch.device) -> dict[str, Contender]:
        make, shape, *_ = CRITICS[critic]
        network, inputs = make().to(device), inputs_of(shape, device)
        # A copy for each: spectral norm moves its buffers in every forward.
        return {
            contender: trained(copy.deepcopy(network), step, inputs)
            for contender, step in steps().items()
        }

    shape = CRITICS[critic][1]
    return Workload(
        name,
        section,
        build,
        floors,
        shapes=sizes([shape, shape]),
        direction="value + gradients of the weights",
        source=SOURCES[critic],
    )


def alone(penalty: Step) -> Step:
    return penalty


def _eager(ours: Step, stock: Step) -> Callable[[], dict[str, Step]]:
    return lambda: {OURS: ours, EAGER: stock}


def _compiled(ours: Step, functional: Step, stock: Step) -> Callable[[], dict[str, Step]]:
    return lambda: {
        OURS: torch.compile(ours, options=ganloss_fast.compile_options()),
        COMPILE: torch.compile(functional),
        EAGER: stock,
    }


def workloads() -> list[Workload]:
    rows = []
    for critic, (_, _, *floors) in CRITICS.items():
        for mode in MODES:
            for (what, wrap), floor in zip(PARTS.items(), floors):
                steps = _eager(wrap(our_penalty(mode)), wrap(stock_penalty))
                rows.append(_workload(f"{critic}: {what}, {mode}", critic, steps, {EAGER: floor}))
    for mode in MODES:
        steps = _eager(one_forward_step(our_penalty(mode)), wasserstein_step(stock_penalty))
        name = f"DCGAN: step with cat(fake, real), {mode}"
        rows.append(_workload(name, "DCGAN", steps, {EAGER: ONE_FORWARD_FLOOR}))
    for (what, wrap), floor in zip(PARTS.items(), COMPILED_FLOORS):
        steps = _compiled(wrap(our_penalty("auto")), wrap(functional_penalty), wrap(stock_penalty))
        floors = {COMPILE: floor}
        rows.append(_workload(f"DCGAN: compiled {what}", "DCGAN", steps, floors, COMPILED_SECTION))
    return rows


MODES: tuple[GraphCut, ...] = ("auto", "fast")
PARTS = {"penalty": alone, "step": wasserstein_step}
