"""Steps with a gradient penalty: PyTorch-GAN's wgan_gp, and CTGAN.

Neither detaches its fake samples: the discriminator's backward walks through the generator.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ganloss_fast.bench import plain
from ganloss_fast.bench.steps.training import Form, Step, Training, forms, moved
from ganloss_fast.compat.ctgan import Discriminator
from ganloss_fast.compat.pytorch_gan import compute_gradient_penalty
from ganloss_fast.losses.adversarial import discriminator_loss, generator_loss
from ganloss_fast.steps import discriminator_backward, generator_backward

Penalty = Callable[[nn.Module, Tensor, Tensor], Tensor]


def _perceptron(widths: Sequence[int], normalised: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths[:-1]):
        layers.append(nn.Linear(before, after))
        if normalised:
            layers.append(nn.BatchNorm1d(after))
        layers.append(nn.LeakyReLU(0.2))
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


def _steps(
    critic_iterations: int, as_written: Penalty, of_drop_in: Penalty
) -> tuple[Step, Step, Step]:
    def step(t: Training, penalty: Penalty, compat: bool, helpers: bool) -> Sequence[Tensor]:
        real, noise = t.batch["real"], t.batch["noise"]
        for _ in range(critic_iterations):
            t.of_discriminator.zero_grad()
            with torch.set_grad_enabled(not helpers):
                fake = t.generator(noise).view_as(real)
            of_fake, of_real = t.discriminator(fake), t.discriminator(real)
            if compat:
                loss = discriminator_loss(of_real, of_fake, "wasserstein")
            else:
                loss = plain.discriminator_wasserstein(of_real, of_fake)
            loss = loss + penalty(t.discriminator, real, fake)
            if helpers:
                discriminator_backward(loss, t.discriminator)
            else:
                loss.backward()
            of_d = moved(t.of_discriminator, t.discriminator)
        t.of_generator.zero_grad()
        logits = t.discriminator(t.generator(noise).view_as(real))
        loss = generator_loss(logits, "wasserstein") if compat else -logits.mean()
        if helpers:
            generator_backward(loss, t.generator)
        else:
            loss.backward()
        return of_d, moved(t.of_generator, t.generator)

    return (
        lambda t: step(t, as_written, compat=False, helpers=False),
        lambda t: step(t, of_drop_in, compat=True, helpers=False),
        lambda t: step(t, of_drop_in, compat=True, helpers=True),
    )


def _penalty_of_wgan_gp(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    alpha = torch.rand(real.size(0), 1, device=real.device)
    mixed = (alpha * real + (1 - alpha) * fake).detach().requires_grad_(True)
    logits = critic(mixed)
    (gradient,) = torch.autograd.grad(
        logits, mixed, torch.ones_like(logits), create_graph=True, retain_graph=True
    )
    return 10.0 * plain.penalty(gradient)


def wgan_gp_step(device: torch.device, width: int = 512, batch: int = 64) -> dict[str, Form]:
    """Fully connected networks on 28x28 images; five critic iterations, one of the generator."""

    def of_drop_in(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        return 10.0 * compute_gradient_penalty(critic, real, fake)

    generator = _perceptron([100, 128, width // 2, width, 2 * width, 784], normalised=True)
    critic = _perceptron([784, width, width // 2, 1], normalised=False)
    tensors = {"real": torch.randn(batch, 784), "noise": torch.randn(batch, 100)}
    steps = _steps(5, _penalty_of_wgan_gp, of_drop_in)
    return forms(Training(generator, critic, tensors), device, *steps)


PACK = 10


def _penalty_of_ctgan(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """The mixture keeps the generator's graph, as there."""
    alpha = torch.rand(real.size(0) // PACK, 1, 1, device=real.device)
    alpha = alpha.repeat(1, PACK, real.size(1)).view(-1, real.size(1))
    mixed = alpha * real + (1 - alpha) * fake
    if not mixed.requires_grad:
        mixed.requires_grad_(True)
    logits = critic(mixed)
    (gradient,) = torch.autograd.grad(
        logits, mixed, torch.ones_like(logits), create_graph=True, retain_graph=True
    )
    return 10.0 * plain.penalty(gradient.view(-1, PACK * real.size(1)))


def ctgan_step(device: torch.device, rows: int = 500, columns: int = 150) -> dict[str, Form]:
    """Tables: ten rows make one sample of the discriminator, which has dropout."""

    def of_drop_in(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        assert isinstance(critic, Discriminator)
        return critic.calc_gradient_penalty(real, fake, real.device, PACK)

    generator = _perceptron([128, 256, 256, columns], normalised=True)
    critic = Discriminator(columns, (256, 256), PACK)
    tensors = {"real": torch.randn(rows, columns), "noise": torch.randn(rows, 128)}
    steps = _steps(1, _penalty_of_ctgan, of_drop_in)
    return forms(Training(generator, critic, tensors), device, *steps)
