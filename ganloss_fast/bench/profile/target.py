"""What is profiled: a whole step that the user wrote, or one made around a discriminator."""

from __future__ import annotations

import os
import pkgutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ganloss_fast.bench import plain
from ganloss_fast.penalties.table import PENALTIES


class TargetError(Exception):
    """What the user named cannot be loaded, or fails; the text is for people."""


@dataclass(frozen=True)
class Target:
    """A training step and its two sides."""

    name: str
    step: Callable[[], object]
    discriminators: Sequence[nn.Module]
    generators: Sequence[nn.Module]


# ---- module:function ---------------------------------------------------------------------------


def load(option: str, text: str) -> Callable[[], Any]:
    """The function that is named ``module:function``; the working directory is searched too.

    Raises:
        TargetError: if there is none.
    """
    module, _, function = text.partition(":")
    if not module or not function:
        raise TargetError(f"{option}: expected module:function, got {text!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(pkgutil.resolve_name(module), function, None)
    except Exception as error:
        raise TargetError(f"{option}: importing {module} failed: {_said(error)}") from error
    if not callable(found):
        raise TargetError(f"{option}: {module} has no function {function}")
    return found  # type: ignore[no-any-return]


def _said(error: BaseException) -> str:
    text = str(error).splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"


def call(option: str, text: str, function: Callable[[], Any]) -> Any:
    """Calls it, or says what it raised and where.

    Raises:
        TargetError: if it raises an error.
    """
    try:
        return function()
    except Exception as error:
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place else "?"
        raise TargetError(f"{option}: {text} raised {_said(error)} ({where})") from error


def _modules(option: str, name: str, value: object) -> list[nn.Module]:
    given = list(value) if isinstance(value, (list, tuple)) else [value]
    found = [each for each in given if isinstance(each, nn.Module)]
    if not found or len(found) < len(given):
        raise TargetError(f"{option}: {name} must be a torch.nn.Module or several of them")
    if any(hasattr(part, "_orig_mod") for each in found for part in each.modules()):
        raise TargetError(
            f"{option}: {name} is compiled, and its parts could not be told apart; leave "
            "torch.compile out for the profile"
        )
    return found


def users_step(text: str) -> Target:
    """Of ``--step``: a function that returns a dict of ``step``, a function without arguments
    that trains once, optimizers included, and of ``discriminator`` and ``generator``."""
    made = call("--step", text, load("--step", text))
    if not isinstance(made, Mapping) or {"step", "discriminator", "generator"} - set(made):
        raise TargetError(
            f"--step: {text} must return a dict with step, discriminator and generator, "
            f"got {type(made).__name__}"
        )
    if not callable(made["step"]):
        raise TargetError("--step: step must be a function without arguments")
    step = made["step"]
    return Target(
        text,
        lambda: call("--step", f"the step of {text}", step),
        _modules("--step", "discriminator", made["discriminator"]),
        _modules("--step", "generator", made["generator"]),
    )


# ---- a step around a discriminator -------------------------------------------------------------


def parse_shape(text: str) -> tuple[int, ...]:
    """8x3x256x256.

    Raises:
        TargetError: if it is no shape.
    """
    sizes = text.lower().split("x")
    if not all(size.isdigit() and int(size) > 0 for size in sizes):
        raise TargetError(f"--input: expected a shape such as 8x3x256x256, got {text!r}")
    return tuple(map(int, sizes))


class _Samples(nn.Module):
    """Stands for a generator: its samples are its parameter."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.samples = nn.Parameter(torch.randn(shape))

    def forward(self) -> Tensor:
        return self.samples * 1.0


def logits_and_maps(output: object) -> tuple[list[Tensor], list[Tensor]]:
    """Of a tensor of logits, a list of them, or a list of [maps..., logits].

    Raises:
        TargetError: for anything else.
    """
    if isinstance(output, Tensor):
        return [output], []
    if isinstance(output, (list, tuple)) and output:
        if all(isinstance(each, Tensor) for each in output):
            return list(output), []
        if all(isinstance(each, (list, tuple)) and each for each in output):
            return [each[-1] for each in output], [m for each in output for m in each[:-1]]
    raise TargetError(
        "--factory: the discriminator must return logits, a list of them, or a list of "
        f"[maps..., logits]; it returned {type(output).__name__}. Write the step yourself: --step"
    )


def around(text: str, shape: tuple[int, ...], loss: str, penalty: str | None) -> Target:
    """Of ``--factory``: the step as people write it, around a discriminator and random samples.

    Raises:
        TargetError: if the factory fails, or the discriminator does not take such samples.
    """
    made = call("--factory", text, load("--factory", text))
    (discriminator,) = _modules("--factory", "what it returns", made)
    generator = _Samples(shape)
    real = torch.randn(shape)
    of_d = torch.optim.Adam(discriminator.parameters(), lr=1e-4)
    of_g = torch.optim.Adam(generator.parameters(), lr=1e-4)

    def step() -> None:
        fake = generator()
        of_d.zero_grad()
        reals, _ = logits_and_maps(discriminator(real))
        fakes, _ = logits_and_maps(discriminator(fake.detach()))
        pairs = [plain.DISCRIMINATOR_LOSSES[loss](r, f) for r, f in zip(reals, fakes)]
        total = torch.stack(pairs).sum()
        if penalty is not None:
            total = total + _penalty(discriminator, penalty, real, fake.detach())
        total.backward()
        of_d.step()
        of_g.zero_grad()
        fakes, fake_maps = logits_and_maps(discriminator(fake))
        total = torch.stack([plain.GENERATOR_LOSSES[loss](f) for f in fakes]).sum()
        if fake_maps:
            _, real_maps = logits_and_maps(discriminator(real))
            total = total + plain.feature_loss(real_maps, fake_maps)
        total.backward()
        of_g.step()

    def checked() -> None:
        call("--factory", f"the discriminator of {text}, on an input of {list(shape)},", step)

    return Target(text, checked, [discriminator], [generator])


def _penalty(critic: nn.Module, name: str, real: Tensor, fake: Tensor) -> Tensor:
    points = real
    if name not in ("r1", "r2"):
        alpha = torch.rand(real.size(0), *[1] * (real.dim() - 1))
        points = plain.interpolate(real, fake, alpha)
    elif name == "r2":
        points = fake
    points = points.detach().requires_grad_(True)
    logits, _ = logits_and_maps(critic(points))
    score = torch.stack([logit.sum() for logit in logits]).sum()
    (gradient,) = torch.autograd.grad(score, points, create_graph=True)
    return plain.squared_norm(gradient) if name in ("r1", "r2") else plain.penalty(gradient)


LOSS_NAMES = tuple(plain.DISCRIMINATOR_LOSSES)
PENALTY_NAMES = ("none", "r1", "r2", "wgan-gp")
assert {name for name in PENALTY_NAMES if name != "none"} <= set(PENALTIES)
