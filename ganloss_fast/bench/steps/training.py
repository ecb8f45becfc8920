"""What the steps share: two networks, two optimizers, and the gradients that are compared."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ganloss_fast.bench.workload import COMPILE, DROP_IN, EAGER, HELPERS


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

    def learn(self, rate: float) -> None:
        """From here on the weights move; with a rate of 0 they stay again."""
        for optimizer in (self.of_generator, self.of_discriminator):
            for group in optimizer.param_groups:
                group["lr"] = rate


Step = Callable[[Training], Sequence[Tensor]]


def gradients(module: nn.Module) -> Tensor:
    """As one vector: that of a bias before a normalisation is nothing but rounding."""
    found = [p.grad.flatten() for p in module.parameters() if p.grad is not None]
    return torch.cat(found)


class Form:
    """One way to write a step, with networks of its own: a contender of the benchmark, which always
    starts from the same weights, and a training that goes on (bench/train)."""

    def __init__(self, step: Step, training: Training) -> None:
        self.step = step
        self.training = training

    def __call__(self) -> Sequence[Tensor]:
        torch.manual_seed(0)
        return self.step(self.training)


Build = Callable[[torch.device], dict[str, Form]]


def forms(
    training: Training,
    device: torch.device,
    written: Step,
    drop_in: Step,
    with_helpers: Step | None = None,
    switched: Mapping[str, Step] | None = None,
    compiled: Step | None = None,
) -> dict[str, Form]:
    """A step as its codebase writes it, with the drop-in alone, and with the step helpers too: each
    on a copy of the networks, and all with the same random numbers. ``with_helpers`` is None where
    the drop-in leaves them nothing to gain; ``switched``: the drop-in with one of its switches;
    ``compiled``: the step as written, rewritten as far as torch.compile needs it."""

    def form(step: Step) -> Form:
        own = Training(
            copy.deepcopy(training.generator).to(device),
            copy.deepcopy(training.discriminator).to(device),
            {name: tensor.to(device) for name, tensor in training.batch.items()},
            None if training.perceptual is None else training.perceptual.to(device),
        )
        return Form(step, own)

    steps = {EAGER: written, DROP_IN: drop_in}
    if with_helpers is not None:
        steps[HELPERS] = with_helpers
    steps |= {f"{DROP_IN}, {name}": step for name, step in (switched or {}).items()}
    if compiled is not None:
        steps[COMPILE] = compiled
    return {name: form(step) for name, step in steps.items()}


def with_compiled_networks(build: Build) -> Build:
    """The forms of a step, and the one as written with its networks compiled. (Not those of a
    penalty: torch.compile has no second order of a compiled network.)"""

    def built(device: torch.device) -> dict[str, Form]:
        found = build(device)
        written = found[EAGER]
        generator = copy.deepcopy(written.training.generator)
        discriminator = copy.deepcopy(written.training.discriminator)
        for network in (generator, discriminator):
            network.compile(dynamic=False)
        own = Training(
            generator, discriminator, written.training.batch, written.training.perceptual
        )
        return found | {COMPILE: Form(written.step, own)}

    return built


def moved(optimizer: torch.optim.Optimizer, module: nn.Module) -> Tensor:
    """The step of one side; its gradients, before the other side may add to them."""
    found = gradients(module)
    optimizer.step()
    return found
