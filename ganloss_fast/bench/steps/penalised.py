"""Steps with a gradient penalty: PyTorch-GAN's wgan_gp, and CTGAN.

Neither detaches its fake samples: the discriminator's backward walks through the generator.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganloss_fast.bench import plain
from ganloss_fast.bench.steps.training import Form, Step, Training, forms, moved
from ganloss_fast.compat import ctgan
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


NOISE = 100


def _steps(
    critic_iterations: int, as_written: Penalty, of_drop_in: Penalty
) -> tuple[Step, Step, Step]:
    def step(t: Training, penalty: Penalty, compat: bool, helpers: bool) -> Sequence[Tensor]:
        real = t.batch["real"]
        for _ in range(critic_iterations):
            t.of_discriminator.zero_grad()
            noise = torch.randn(len(real), NOISE, device=real.device)
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
        t.of_generator.zero_grad()  # the noise is that of the last iteration, as there
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

    generator = _perceptron([NOISE, 128, width // 2, width, 2 * width, 784], normalised=True)
    critic = _perceptron([784, width, width // 2, 1], normalised=False)
    steps = _steps(5, _penalty_of_wgan_gp, of_drop_in)
    return forms(Training(generator, critic, {"real": torch.randn(batch, 784)}), device, *steps)


# ---- CTGAN -------------------------------------------------------------------------------------

PACK = 10


class _Residual(nn.Module):
    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.fc, self.bn = nn.Linear(before, width), nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([F.relu(self.bn(self.fc(x))), x], dim=1)


def _activated(x: Tensor, spans: Sequence[int]) -> Tensor:
    """Of the columns that stand for one column of the table: a number, or which category it is."""
    parts = [
        part.tanh() if part.shape[1] == 1 else F.gumbel_softmax(part, tau=0.2)
        for part in x.split(tuple(spans), dim=1)
    ]
    return torch.cat(parts, dim=1)


def _generator_of_ctgan(inputs: int, outputs: int, width: int = 256) -> nn.Module:
    """The published one at its default widths."""
    return nn.Sequential(
        _Residual(inputs, width),
        _Residual(inputs + width, width),
        nn.Linear(inputs + 2 * width, outputs),
    )


def _penalty_of_ctgan(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """The mixture keeps the generator's graph, as there."""
    alpha = torch.rand(real.size(0) // PACK, 1, 1, device=real.device)
    alpha = alpha.repeat(1, PACK, real.size(1)).view(-1, real.size(1))
    mixed = alpha * real + (1 - alpha) * fake
    logits = critic(mixed)
    (gradient,) = torch.autograd.grad(
        logits, mixed, torch.ones_like(logits), create_graph=True, retain_graph=True
    )
    return 10.0 * plain.penalty(gradient.view(-1, PACK * real.size(1)))


# Categories of the columns that are no numbers, as in the Adult table.
CATEGORIES = (9, 16, 7, 15, 6, 5, 2, 42, 2)


def ctgan_step(
    device: torch.device,
    rows: int = 500,
    numbers: int = 6,
    categories: Sequence[int] = CATEGORIES,
    noise: int = 128,
) -> dict[str, Form]:
    """Tables: ten rows make one sample of the discriminator, which has dropout. A row asks for one
    category, which both networks see. Penalty and loss have a backward each, and both walk through
    the generator, whose rows are not detached."""
    spans = (1, 8) * numbers + tuple(categories)  # of a number: itself, and which of its modes
    columns, asked = sum(spans), sum(categories)
    condition = F.one_hot(torch.randint(asked, (rows,)), asked).float()
    chosen = condition.split(tuple(categories), dim=1)

    def of_drop_in(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        assert isinstance(critic, ctgan.Discriminator)
        return critic.calc_gradient_penalty(real, fake, real.device, PACK)

    def generated(t: Training) -> tuple[Tensor, Tensor]:
        asking = t.batch["condition"]
        fresh = torch.randn(rows, noise, device=asking.device)
        raw = t.generator(torch.cat([fresh, asking], dim=1))
        return raw, torch.cat([_activated(raw, spans), asking], dim=1)

    def generator_step(t: Training) -> Tensor:
        raw, fake = generated(t)
        missed = [
            F.cross_entropy(part, of_row.argmax(1), reduction="none") * of_row.sum(1)
            for part, of_row in zip(raw.split(spans, dim=1)[2 * numbers :], chosen)
        ]
        t.of_generator.zero_grad(set_to_none=False)
        loss: Tensor = -t.discriminator(fake).mean() + torch.stack(missed).sum() / rows
        return loss

    def step(t: Training, penalty: Penalty) -> Sequence[Tensor]:
        real, (_, fake) = t.batch["real"], generated(t)
        of_fake, of_real = t.discriminator(fake), t.discriminator(real)
        of_norms = penalty(t.discriminator, real, fake)
        loss = -(of_real.mean() - of_fake.mean())
        t.of_discriminator.zero_grad(set_to_none=False)
        of_norms.backward(retain_graph=True)
        loss.backward()
        of_d = moved(t.of_discriminator, t.discriminator)
        generator_step(t).backward()
        return of_d, moved(t.of_generator, t.generator)

    def by_function(t: Training, helpers: bool) -> Sequence[Tensor]:
        assert isinstance(t.discriminator, ctgan.Discriminator)
        real = t.batch["real"]
        with torch.set_grad_enabled(not helpers):
            _, fake = generated(t)
        loss, penalty = ctgan.discriminator_losses(t.discriminator, real, fake, real.device)
        t.of_discriminator.zero_grad(set_to_none=False)
        (loss + penalty).backward()
        of_d = moved(t.of_discriminator, t.discriminator)
        loss = generator_step(t)
        if helpers:
            generator_backward(loss, t.generator)
        else:
            loss.backward()
        return of_d, moved(t.of_generator, t.generator)

    critic = ctgan.Discriminator(columns + asked, (256, 256), PACK)
    tensors = {
        "real": torch.cat([torch.randn(rows, columns), condition], dim=1),
        "condition": condition,
    }
    return forms(
        Training(_generator_of_ctgan(noise + asked, columns), critic, tensors),
        device,
        lambda t: step(t, _penalty_of_ctgan),
        lambda t: step(t, of_drop_in),
        lambda t: by_function(t, helpers=True),
        {"discriminator_losses": lambda t: by_function(t, helpers=False)},
    )
