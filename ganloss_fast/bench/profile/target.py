"""What is profiled: a whole step that the user wrote, or one made around a discriminator."""

from __future__ import annotations

import inspect
import os
import pkgutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ganloss_fast.bench import plain
from ganloss_fast.bench.profile.ledger import D, G
from ganloss_fast.bench.timing import ERRORS
from ganloss_fast.penalties.table import PENALTIES

PERCEPTUAL = "perceptual network"


class TargetError(Exception):
    """What the user named cannot be loaded, or fails; the text is for people."""


@dataclass(frozen=True)
class Target:
    """A training step, its two sides, and the networks of a perceptual loss. ``notes`` are for the
    reader of the profile."""

    name: str
    step: Callable[[], object]
    discriminators: Sequence[nn.Module]
    generators: Sequence[nn.Module]
    perceptual: Sequence[nn.Module] = ()
    notes: list[str] = field(default_factory=list)

    @property
    def sides(self) -> dict[str, Sequence[nn.Module]]:
        return {D: self.discriminators, G: self.generators, PERCEPTUAL: self.perceptual}


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
    except ERRORS as error:
        raise TargetError(f"{option}: importing {module} failed: {_said(error)}") from error
    if not callable(found):
        raise TargetError(f"{option}: {module} has no function {function}")
    return found  # type: ignore[no-any-return]


def _said(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return ": ".join([type(error).__name__, *text[:1]])


def call(option: str, text: str, function: Callable[[], Any]) -> Any:
    """Calls it, or says what it raised and where.

    Raises:
        TargetError: if it raises an error.
    """
    try:
        return function()
    except TargetError:
        raise
    except ERRORS as error:
        raise TargetError(f"{option}: {text} raised {_said(error)}{_where(error)}") from error


def _where(error: BaseException) -> str:
    """The line that raised it; none where that is ours, which called what takes arguments."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    file = place.tb_frame.f_code.co_filename if place else __file__
    return "" if place is None or file == __file__ else f" ({file}:{place.tb_lineno})"


def _modules(option: str, name: str, value: object) -> list[nn.Module]:
    given = list(value) if isinstance(value, (list, tuple)) else [value]
    found = [each for each in given if isinstance(each, nn.Module)]
    if not found or len(found) < len(given):
        raise TargetError(
            f"{option}: {name} must be a torch.nn.Module or a list of them, got {_described(value)}"
        )
    if any(p.is_meta for each in found for p in each.parameters() if not nn.parameter.is_lazy(p)):
        raise TargetError(f"{option}: {name} is on the meta device, where nothing is computed")
    if any(hasattr(part, "_orig_mod") for each in found for part in each.modules()):
        raise TargetError(
            f"{option}: {name} is compiled, and its parts could not be told apart; leave "
            "torch.compile out for the profile"
        )
    return found


def users_step(text: str) -> Target:
    """Of ``--step``: a function that returns a dict of ``step``, a function without arguments
    that trains once, optimizers included, of ``discriminator`` and ``generator``, and perhaps of
    ``perceptual``: modules or lists of them."""
    made = call("--step", text, load("--step", text))
    if not isinstance(made, Mapping) or {"step", "discriminator", "generator"} - set(made):
        raise TargetError(
            f"--step: {text} must return a dict with step, discriminator and generator, "
            f"got {type(made).__name__}"
        )
    if not callable(made["step"]):
        raise TargetError("--step: step must be a function without arguments")
    step = made["step"]
    discriminators = _modules("--step", "discriminator", made["discriminator"])
    generators = _modules("--step", "generator", made["generator"])
    if any(one is other for one in discriminators for other in generators):
        raise TargetError("--step: discriminator and generator must not be the same module")
    given = made.get("perceptual")
    nothing = given is None or (isinstance(given, (list, tuple)) and not given)
    return Target(
        text,
        lambda: call("--step", f"the step of {text}", step),
        discriminators,
        generators,
        () if nothing else _modules("--step", "perceptual", given),
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

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.samples = nn.Parameter(torch.randn_like(like))

    def forward(self) -> Tensor:
        return self.samples * 1.0


def _is_logits(output: Tensor) -> bool:
    """Whether it has one channel, or one number for each sample."""
    return output.dim() < 2 or output.size(1) == 1 or output.size(-1) == 1


def logits_and_maps(output: object) -> tuple[list[Tensor], list[Tensor]]:
    """Of a tensor of logits, a list of them, a list of [maps..., logits], or a pair of logits and
    features.

    Raises:
        TargetError: for anything else.
    """
    if isinstance(output, Tensor):
        return [output], []
    if isinstance(output, (list, tuple)) and output:
        if all(isinstance(each, Tensor) for each in output):
            found = _of_tensors(output)
            if found is not None:
                return found
        elif all(isinstance(each, (list, tuple)) and each for each in output):
            return [each[-1] for each in output], [m for each in output for m in each[:-1]]
    raise TargetError(
        "--factory: the discriminator must return logits, a list of them, a list of "
        f"[maps..., logits], or (logits, features); it returned {_described(output)}. Write the "
        "step yourself: --step"
    )


def _of_tensors(output: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]] | None:
    """Which of them are logits; None if nobody can tell."""
    first, *others = output
    if all(map(_is_logits, output)):
        return list(output), []
    if _is_logits(first) and not any(map(_is_logits, others)):
        return [first], list(others)
    *others, last = output
    if _is_logits(last) and not any(map(_is_logits, others)):
        return [last], list(others)
    return (list(output), []) if isinstance(output, list) else None


def _described(output: object) -> str:
    if isinstance(output, (list, tuple)):
        if not output:
            return f"an empty {type(output).__name__}"
        shapes = [list(t.shape) if isinstance(t, Tensor) else type(t).__name__ for t in output]
        return f"a {type(output).__name__} of {', '.join(map(str, shapes))}"
    return f"a {type(output).__name__}"


def _ask_for_samples_alone(text: str, discriminator: nn.Module, real: Tensor) -> None:
    """
    Raises:
        TargetError: if it needs labels, or whatever else.
    """
    try:
        signature = inspect.signature(discriminator.forward)
    except ValueError:  # of a scripted module
        return
    try:
        signature.bind(real)
    except TypeError as error:
        raise TargetError(
            f"--factory: the discriminator of {text} does not take samples alone, its forward is "
            f"{signature} ({error}). Write the step yourself: --step"
        ) from None


def _note(output: object) -> list[str]:
    """What was taken for what, where that could be otherwise.

    Raises:
        TargetError: if there is no loss to make of it.
    """
    logits, maps = logits_and_maps(output)
    if not all(logit.requires_grad for logit in logits):
        raise TargetError(
            "--factory: the discriminator must return logits that its parameters learn from; they "
            "are detached, or no floating point"
        )
    if isinstance(output, Tensor) or not maps or not isinstance(output[0], Tensor):  # type: ignore[index]
        return []
    (shape,) = (list(logit.shape) for logit in logits)
    return [
        f"Of what the discriminator returned, the {len(maps)} outputs other than {shape} are taken "
        "for feature maps."
    ]


def around(
    text: str,
    shape: tuple[int, ...],
    loss: str,
    penalty: str | None,
    device: torch.device | None = None,
) -> Target:
    """Of ``--factory``: the step as people write it, around a discriminator and random samples, on
    ``device`` or where the discriminator is.

    Raises:
        TargetError: if the factory fails, or the discriminator does not take such samples.
    """
    made = call("--factory", text, load("--factory", text))
    if isinstance(made, (list, tuple)):
        raise TargetError(
            f"--factory: {text} must return one discriminator, got {_described(made)}; of several, "
            "write the step yourself: --step"
        )
    (discriminator,) = _modules("--factory", f"what {text} returns", made)
    what = f"the discriminator of {text}, on an input of {list(shape)},"
    if not any(p.requires_grad for p in discriminator.parameters()):
        raise TargetError(f"--factory: the discriminator of {text} has no parameter that learns")
    if device is not None:
        discriminator.to(device)
    like = next(p for p in discriminator.parameters() if p.requires_grad)
    name = "x".join(map(str, shape))
    real = call("--input", name, lambda: torch.randn(shape, device=like.device, dtype=like.dtype))
    generator = call("--input", name, lambda: _Samples(real))
    _ask_for_samples_alone(text, discriminator, real)
    notes = call("--factory", what, lambda: _note(discriminator(real)))  # makes what is lazy, too
    of_d = torch.optim.Adam([p for p in discriminator.parameters() if p.requires_grad], lr=1e-4)
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

    checked = partial(call, "--factory", what, step)
    return Target(text, checked, [discriminator], [generator], notes=notes)


def _penalty(critic: nn.Module, name: str, real: Tensor, fake: Tensor) -> Tensor:
    points = real
    if name not in ("r1", "r2"):
        alpha = real.new_empty(real.size(0), *[1] * (real.dim() - 1)).uniform_()
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
