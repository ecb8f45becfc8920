"""What the steps share: two networks, two optimizers, and the gradients that are compared."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ganloss_fast.bench.workload import DROP_IN, EAGER, HELPERS, Contender


@dataclass
class Training:
    """The two sides, and batches by name."""

    generator: nn.Module
    discriminator: nn.Module
    batch: dict[str, Tensor]
    perceptual: nn.Module | None = None

    def __post_init__(self) -> None:
        self.of_generator = torch.optim.Adam(self.generator.parameters(), lr=0.0)
        self.of_discriminator = torch.optim.Adam(self.discriminator.parameters(), lr=0.0)


Step = Callable[[Training], Sequence[Tensor]]


def gradients(module: nn.Module) -> Tensor:
    """As one vector: that of a bias before a normalisation is nothing but rounding."""
    found = [p.grad.flatten() for p in module.parameters() if p.grad is not None]
    return torch.cat(found)


def forms(
    training: Training,
    device: torch.device,
    written: Step,
    drop_in: Step,
    with_helpers: Step,
    switched: Mapping[str, Step] | None = None,
) -> dict[str, Contender]:
    """A step as its codebase writes it, with the drop-in alone, and with the step helpers too: each
    on a copy of the networks, and all with the same random numbers. ``switched``: the drop-in with
    one of its switches."""

    def contender(step: Step) -> Contender:
        own = Training(
            copy.deepcopy(training.generator).to(device),
            copy.deepcopy(training.discriminator).to(device),
            {name: tensor.to(device) for name, tensor in training.batch.items()},
            None if training.perceptual is None else training.perceptual.to(device),
        )

        def work() -> Sequence[Tensor]:
            torch.manual_seed(0)
            return step(own)

        return work

    steps = {EAGER: written, DROP_IN: drop_in, HELPERS: with_helpers}
    steps |= {f"{DROP_IN}, {name}": step for name, step in (switched or {}).items()}
    return {name: contender(step) for name, step in steps.items()}


def moved(optimizer: torch.optim.Optimizer, module: nn.Module) -> Tensor:
    """The step of one side; its gradients, before the other side may add to them."""
    found = gradients(module)
    optimizer.step()
    return found
