"""One GAN in training: its networks, optimisers and random numbers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from demo.networks import build_critic, build_generator, draw_latents
from demo.objectives import Objective

BASE_WIDTH = 64
LEARNING_RATE = 5e-4
BETAS = (0.0, 0.9)  # of WGAN-GP
AVERAGING = 0.98  # samples come from a moving average of the generator, as is usual
CLIP = 0.03  # keeps a Wasserstein critic without penalty Lipschitz, as its paper does


@dataclass(frozen=True)
class Settings:
    """What a run depends on, besides its data."""

    loss: str = "wasserstein-gp"
    size: int = 32
    batch: int = 32
    seed: int = 0


@dataclass(frozen=True)
class StepRecord:
    """One training step: losses, and seconds that it took."""

    critic_loss: float
    generator_loss: float
    critic_seconds: float
    generator_seconds: float


class Trainer:
    """Trains one pair with one objective. Equal settings give equal weights and batches.

    Args:
        objective: how the losses are computed.
        settings: sizes and seed.
        crops: real images [N, 3, size, size].
    """

    def __init__(self, objective: Objective, settings: Settings, crops: Tensor) -> None:
        self.objective = objective
        self.settings = settings
        self.crops = crops
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.generator = build_generator(settings.size, BASE_WIDTH)
            self.critic = build_critic(settings.size, BASE_WIDTH)
        self.rng = torch.Generator().manual_seed(settings.seed)
        self.critic_optimizer = _optimizer(self.critic)
        self.generator_optimizer = _optimizer(self.generator)
        self.averaged_generator = AveragedModel(
            self.generator, multi_avg_fn=get_ema_multi_avg_fn(AVERAGING), use_buffers=True
        ).eval()

    def step(self) -> StepRecord:
        """One step of the critic, then one of the generator."""
        started = time.perf_counter()
        critic_loss = self._critic_step()
        between = time.perf_counter()
        generator_loss = self._generator_step()
        ended = time.perf_counter()
        self.averaged_generator.update_parameters(self.generator)
        return StepRecord(
            critic_loss=critic_loss,
            generator_loss=generator_loss,
            critic_seconds=between - started,
            generator_seconds=ended - between,
        )

    def draw_batch(self) -> tuple[Tensor, Tensor]:
        """Real and generated images [B, 3, size, size], without gradient."""
        chosen = torch.randint(len(self.crops), (self.settings.batch,), generator=self.rng)
        with torch.no_grad():
            fake = self.generator(draw_latents(self.settings.batch, self.rng))
        return self.crops[chosen], fake

    @torch.no_grad()
    def samples(self, latents: Tensor) -> Tensor:
        """Images [N, 3, size, size] in [-1, 1], from the averaged weights."""
        return self.averaged_generator(latents)

    def _critic_step(self) -> float:
        real, fake = self.draw_batch()
        self.critic_optimizer.zero_grad(set_to_none=True)
        loss = self.objective.critic_loss(self.critic, real, fake, self.rng)
        loss.backward()
        self.critic_optimizer.step()
        if self.settings.loss == "wasserstein":
            with torch.no_grad():
                for parameter in self.critic.parameters():
                    parameter.clamp_(-CLIP, CLIP)
        return loss.item()

    def _generator_step(self) -> float:
        self.generator_optimizer.zero_grad(set_to_none=True)
        latents = draw_latents(self.settings.batch, self.rng)
        with self.objective.generator_step(self.critic):
            loss = self.objective.generator_loss(self.critic, self.generator(latents))
        loss.backward()
        self.generator_optimizer.step()
        return loss.item()


def _optimizer(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, betas=BETAS)


@contextmanager
def _undisturbed(trainer: Trainer) -> Iterator[None]:
    """Whatever draws random numbers and moves buffers in here leaves the training as it was."""
    state = trainer.rng.get_state()
    buffers = [buffer.clone() for buffer in trainer.generator.buffers()]
    yield
    trainer.rng.set_state(state)
    for buffer, kept in zip(trainer.generator.buffers(), buffers):
        buffer.copy_(kept)


def gradient_disagreement(
    trainer: Trainer, first: Objective, second: Objective
) -> tuple[float, float]:
    """How far two objectives differ at the same weights, batch and random numbers.

    Two runs drift apart however small their rounding differs; this does not.

    Returns:
        ``|loss_1 - loss_2|``, and the critic gradients' ``||g_1 - g_2|| / ||g_1||``.
    """
    parameters = list(trainer.critic.parameters())
    losses, gradients = [], []
    with _undisturbed(trainer):
        real, fake = trainer.draw_batch()
        for objective in (first, second):
            rng = torch.Generator().manual_seed(0)
            loss = objective.critic_loss(trainer.critic, real, fake, rng)
            losses.append(loss.item())
            found = torch.autograd.grad(loss, parameters)
            gradients.append(torch.cat([gradient.flatten() for gradient in found]))
    distance = torch.linalg.vector_norm(gradients[0] - gradients[1])
    return abs(losses[0] - losses[1]), (distance / torch.linalg.vector_norm(gradients[0])).item()


def penalty_seconds(trainer: Trainer, objectives: Sequence[Objective]) -> list[float]:
    """Seconds of the gradient penalty alone, forward and backward, of each objective in turn."""
    parameters = list(trainer.critic.parameters())
    with _undisturbed(trainer):
        real, fake = trainer.draw_batch()

        def timed(objective: Objective) -> float:
            started = time.perf_counter()
            penalty = objective.penalty(trainer.critic, real, fake, trainer.rng)
            torch.autograd.grad(penalty, parameters, allow_unused=True)
            return time.perf_counter() - started

        for objective in objectives:
            timed(objective)  # first calls allocate
        return [timed(objective) for objective in objectives]
