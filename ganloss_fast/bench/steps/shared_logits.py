"""Steps whose penalty is taken of the logits that the loss has: R3GAN, and motion priors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganloss_fast.bench import plain
from ganloss_fast.bench.steps.training import Form, Training, forms, moved
from ganloss_fast.compat import amp as compat_amp
from ganloss_fast.compat.r3gan import R3GANLoss

# ---- R3GAN -------------------------------------------------------------------------------------


class _Block(nn.Module):
    """A residual block without normalisation, grouped in the middle."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, 2 * width, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=groups, bias=False),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, width, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = x + self.layers(x)
        return found


class _Critic(nn.Module):
    def __init__(self, width: int, stages: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 1)]
        for _ in range(stages):
            layers += [_Block(width, groups=4), nn.AvgPool2d(2)]
        layers += [_Block(width, groups=4), nn.Flatten(), nn.Linear(16 * width, 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        found: Tensor = self.layers(images).view(-1)
        return found


class _Generator(nn.Module):
    def __init__(self, width: int, stages: int, noise: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Linear(noise, 16 * width), nn.Unflatten(1, (width, 4, 4))]
        for _ in range(stages):
            layers += [_Block(width, groups=4), nn.Upsample(scale_factor=2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 3, 1))

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        found: Tensor = self.layers(noise)
        return found


def r3gan_step(
    device: torch.device, stages: int = 3, width: int = 32, batch: int = 16
) -> dict[str, Form]:
    """Its two phases on 32x32 images; in either one the other side's parameters rest."""
    gamma = 2.0

    def generator_phase(t: Training, real: Tensor, labels: Tensor, noise: Tensor) -> None:
        of_fake = t.discriminator(t.generator(noise, labels), labels)
        of_real = t.discriminator(real.detach(), labels)
        F.softplus(of_real - of_fake).mean().backward()

    def penalty(logits: Tensor, samples: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(logits.sum(), samples, create_graph=True)
        return gradient.square().sum([1, 2, 3])

    def discriminator_phase(t: Training, real: Tensor, labels: Tensor, noise: Tensor) -> None:
        real = real.detach().requires_grad_(True)
        fake = t.generator(noise, labels).detach().requires_grad_(True)
        of_real, of_fake = t.discriminator(real, labels), t.discriminator(fake, labels)
        both = penalty(of_real, real) + penalty(of_fake, fake)
        (F.softplus(of_fake - of_real) + gamma / 2 * both).mean().backward()

    def step(t: Training, run: Callable[..., None]) -> Sequence[Tensor]:
        found = []
        for phase, own, optimizer in (
            ("G", t.generator, t.of_generator),
            ("D", t.discriminator, t.of_discriminator),
        ):
            for side in (t.generator, t.discriminator):
                side.requires_grad_(side is own)
            optimizer.zero_grad(set_to_none=True)
            run(t, phase)
            found.append(moved(optimizer, own))
        return found

    def written(t: Training, phase: str) -> None:
        run = generator_phase if phase == "G" else discriminator_phase
        run(t, t.batch["real"], t.batch["labels"], t.batch["noise"])

    def drop_in(t: Training, phase: str) -> None:
        real, labels, noise = (t.batch[name] for name in ("real", "labels", "noise"))
        R3GANLoss(t.generator, t.discriminator).accumulate_gradients(
            phase, real, labels, noise, gamma, 1.0
        )

    size = 4 << stages
    tensors = {
        "real": torch.randn(batch, 3, size, size),
        "noise": torch.randn(batch, 64),
        "labels": torch.zeros(batch, 0),
    }
    return forms(
        Training(_Generator(width, stages), _Critic(width, stages), tensors),
        device,
        lambda t: step(t, written),
        lambda t: step(t, drop_in),
    )


# ---- motion priors -----------------------------------------------------------------------------


def motion_prior_step(
    device: torch.device,
    features: int = 210,
    widths: tuple[int, int] = (1024, 512),
    batch: int = 4096,
) -> dict[str, Form]:
    """The discriminator's step of skrl: the agent's motions and those of its memory against
    demonstrations, R1 at the demonstrations, weights decayed. What stands for a generator is the
    policy, which learns from rewards."""

    def total(critic: nn.Module, agent: Tensor, demo: Tensor, gradient: Tensor) -> Tensor:
        prediction = 0.5 * plain.discriminator_bce(demo, agent)
        linear = [each for each in critic.modules() if isinstance(each, nn.Linear)]
        regularization = 0.05 * linear[-1].weight.square().sum()
        regularization = regularization + 5.0 * gradient.square().sum(-1).mean()
        weights = torch.cat([each.weight.flatten() for each in linear])
        return 5.0 * (prediction + regularization + 1e-4 * weights.square().sum())

    def written_loss(t: Training, agent: Tensor, states: Tensor) -> Tensor:
        of_agent, demo = t.discriminator(agent), t.discriminator(states)
        (gradient,) = torch.autograd.grad(
            demo, states, torch.ones_like(demo), create_graph=True, retain_graph=True
        )
        return total(t.discriminator, of_agent, demo, gradient)

    @partial(torch.compile, dynamic=False)
    def compiled_total(critic: nn.Module, agent: Tensor, states: Tensor) -> Tensor:
        """The same for torch.compile, which cannot trace autograd.grad."""

        def summed(x: Tensor) -> tuple[Tensor, Tensor]:
            logits = critic(x)
            return logits.sum(), logits

        gradient, demo = torch.func.grad(summed, has_aux=True)(states)
        return total(critic, critic(agent), demo, gradient)

    def compiled_loss(t: Training, agent: Tensor, states: Tensor) -> Tensor:
        loss: Tensor = compiled_total(t.discriminator, agent, states.detach())
        return loss

    def drop_in_loss(t: Training, agent: Tensor, states: Tensor) -> Tensor:
        logits = t.discriminator(agent), t.discriminator(states)
        return compat_amp.motion_prior_loss(t.discriminator, *logits, states).total

    def step(t: Training, loss_of: Callable[..., Tensor]) -> Sequence[Tensor]:
        states = t.batch["demonstrations"].detach().requires_grad_(True)
        agent = torch.cat([t.batch["agent"], t.batch["replay"]])
        loss = loss_of(t, agent, states)
        t.of_discriminator.zero_grad()
        loss.backward()
        return [moved(t.of_discriminator, t.discriminator)]

    first, second = widths
    critic = nn.Sequential(
        nn.Linear(features, first),
        nn.ReLU(),
        nn.Linear(first, second),
        nn.ReLU(),
        nn.Linear(second, 1),
    )
    names = ("agent", "replay", "demonstrations")
    tensors = {name: torch.randn(batch, features) for name in names}
    return forms(
        Training(nn.Linear(1, 1), critic, tensors),
        device,
        lambda t: step(t, written_loss),
        lambda t: step(t, drop_in_loss),
        compiled=lambda t: step(t, compiled_loss),
    )
