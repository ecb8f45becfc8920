"""The two ways to compute the losses of a training run: plain PyTorch and ganloss_fast.

Same formulas, same random numbers; a training loop takes either.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

import ganloss_fast
from ganloss_fast.bench import plain

GRADIENT_PENALTY_SUFFIX = "-gp"
LOSSES = ("bce", "hinge", "least_squares", "wasserstein", "wasserstein-gp")


class Objective(Protocol):
    """What a training step asks for."""

    @property
    def name(self) -> str:
        """For tables and files."""

    def critic_loss(
        self, critic: nn.Module, real: Tensor, fake: Tensor, rng: torch.Generator
    ) -> Tensor:
        """Of images [B, C, H, W]; the fake ones carry no gradient."""

    def penalty(
        self, critic: nn.Module, real: Tensor, fake: Tensor, rng: torch.Generator
    ) -> Tensor:
        """The gradient penalty alone."""

    def generator_loss(self, critic: nn.Module, fake: Tensor) -> Tensor:
        """Of images [B, C, H, W]."""

    def generator_step(self, critic: nn.Module) -> AbstractContextManager:
        """Surrounds the forward pass of a generator step."""


def has_penalty(loss: str) -> bool:
    return split_name(loss)[1]


def split_name(loss: str) -> tuple[str, bool]:
    """The logit loss, and whether a gradient penalty is added: "wasserstein-gp"."""
    return loss.removesuffix(GRADIENT_PENALTY_SUFFIX), loss.endswith(GRADIENT_PENALTY_SUFFIX)


@dataclass(frozen=True)
class PlainPyTorch:
    loss: str
    name: str = "plain PyTorch"

    def critic_loss(
        self, critic: nn.Module, real: Tensor, fake: Tensor, rng: torch.Generator
    ) -> Tensor:
        loss, with_penalty = split_name(self.loss)
        total = plain.DISCRIMINATOR_LOSSES[loss](critic(real), critic(fake))
        if with_penalty:
            total = total + self.penalty(critic, real, fake, rng)
        return total

    def penalty(
        self, critic: nn.Module, real: Tensor, fake: Tensor, rng: torch.Generator
    ) -> Tensor:
        return plain.gradient_penalty(critic, real, fake, rng)

    def generator_loss(self, critic: nn.Module, fake: Tensor) -> Tensor:
        return plain.GENERATOR_LOSSES[split_name(self.loss)[0]](critic(fake))

    def generator_step(self, critic: nn.Module) -> AbstractContextManager:
        return nullcontext()


@dataclass(frozen=True)
class GanlossFast:
    loss: str
    name: str = "ganloss_fast"

    def critic_loss(
        self, critic: nn.Module, real: Tensor, fake: Tensor, rng: torch.Generator
    ) -> Tensor:
        loss, with_penalty = split_name(self.loss)
        total = ganloss_fast.discriminator_loss(critic(real), critic(fake), loss)
        if with_penalty:
            total = total + self.penalty(critic, real, fake, rng)
        return total

    def penalty(
        self, critic: nn.Module, real: Tensor, fake: Tensor, rng: torch.Generator
    ) -> Tensor:
        return ganloss_fast.gradient_penalty(
            critic, real, fake, rng=rng, how=ganloss_fast.Differentiation(graph_cut="fast")
        )

    def generator_loss(self, critic: nn.Module, fake: Tensor) -> Tensor:
        return ganloss_fast.generator_loss(critic(fake), split_name(self.loss)[0])

    def generator_step(self, critic: nn.Module) -> AbstractContextManager:
        return ganloss_fast.frozen(critic)


OBJECTIVES: tuple[Callable[[str], Objective], ...] = (PlainPyTorch, GanlossFast)
