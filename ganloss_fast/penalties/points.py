"""Where a gradient penalty is taken: between real and fake samples, at either, or around real."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ganloss_fast import ops
from ganloss_fast.checks import (
    check_choice,
    check_number,
    check_number_field,
    check_same_device,
    check_tensor,
    describe,
    savable,
)

AlphaKind = Literal["sample", "element", "batch"]
Alpha = float | Tensor | AlphaKind | None
Samples = Tensor | Sequence[Tensor]

ALPHA_KINDS = ("sample", "element", "batch")
PLACES = ("mixed", "real", "fake")


@dataclass(frozen=True)
class AroundReal:
    """Samples around the real ones (DRAGAN; Kodali et al., 2017): where a penalty is taken.

    .. math:: noisy = real + scale \\cdot std(real) \\cdot u, \\qquad
        \\hat x = \\alpha \\cdot real + (1 - \\alpha) \\cdot noisy

    Args:
        scale: factor of the noise.
        std: deviation of the whole batch: ``"sample"`` (divided by n - 1, as torch.std) or
            ``"population"`` (by n, as TensorFlow does); ``"none"`` for 1.
        noise: ``u`` per element: ``"uniform"`` on [0, 1), ``"centered"`` on [-1/2, 1/2), or
            ``"normal"``.
        clamp: bounds of the noisy samples, or None.

    With ``alpha=0.0``, ``AroundReal(1.0, "population", "centered", (0, 1))`` is compare_gan's.
    """

    scale: float = 0.5
    std: Literal["sample", "population", "none"] = "sample"
    noise: Literal["uniform", "centered", "normal"] = "uniform"
    clamp: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        check_number_field(self, "scale")
        check_choice("std", self.std, ("sample", "population", "none"))
        check_choice("noise", self.noise, ("uniform", "centered", "normal"))
        if self.clamp is None:
            return
        if not isinstance(self.clamp, (list, tuple)) or len(self.clamp) != 2:
            raise TypeError(f"clamp: expected two numbers or None, got {describe(self.clamp)}.")
        low, high = (check_number(f"clamp[{k}]", bound) for k, bound in enumerate(self.clamp))
        if low >= high:
            raise ValueError(f"clamp: expected the lower bound first, got {(low, high)}.")
        object.__setattr__(self, "clamp", (low, high))

    def noisy(self, real: Tensor, rng: torch.Generator | None) -> Tensor:
        draw = torch.randn if self.noise == "normal" else torch.rand
        u = draw(real.shape, generator=rng, device=real.device, dtype=_alpha_dtype(real))
        if self.noise == "centered":
            u = u - 0.5
        factor: float | Tensor = self.scale
        if self.std != "none":
            correction = 1 if self.std == "sample" else 0
            factor = self.scale * real.detach().to(u.dtype).std(correction=correction)
        noisy = real + (factor * u).to(real.dtype)
        return noisy.clamp(*self.clamp) if self.clamp is not None else noisy


Where = Literal["mixed", "real", "fake"] | AroundReal


def _checked_images(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the wider of their dtypes: under autocast, generators return half precision."""
    check_tensor("real", real)
    check_tensor("fake", fake)
    if real.dim() == 0:
        raise ValueError("real: expected a batch of samples, got a 0-d tensor.")
    if real.shape != fake.shape:
        raise ValueError(
            f"fake: expected the shape of real, {list(real.shape)}, got {list(fake.shape)}."
        )
    check_same_device("fake", fake, "real", real)
    if real.dtype == fake.dtype:
        return real, fake
    dtype = torch.promote_types(real.dtype, fake.dtype)
    return real.to(dtype), fake.to(dtype)


def _alpha_dtype(like: Tensor) -> torch.dtype:
    return torch.float64 if like.dtype == torch.float64 else torch.float32


def _check_alpha(alpha: object) -> None:
    if isinstance(alpha, str):
        check_choice("alpha", alpha, ALPHA_KINDS)
    elif isinstance(alpha, Tensor):
        check_tensor("alpha", alpha)
    elif alpha is not None:
        check_number("alpha", alpha)


def _draw_alpha(kind: str, like: Tensor, rng: torch.Generator | None) -> Tensor:
    shapes: dict[str, Sequence[int]] = {
        "sample": like.shape[:1],
        "element": like.shape,
        "batch": (),
    }
    return torch.rand(shapes[kind], generator=rng, device=like.device, dtype=_alpha_dtype(like))


def _alpha_tensor(alpha: Alpha, like: Tensor, rng: torch.Generator | None) -> Tensor:
    """alpha as the op takes it: 0-d, [B], or shaped like the samples."""
    if alpha is None:
        return _draw_alpha("sample", like, rng)
    if isinstance(alpha, str):
        return _draw_alpha(alpha, like, rng)
    if not isinstance(alpha, Tensor):
        return torch.full((), float(alpha), device=like.device, dtype=_alpha_dtype(like))
    check_same_device("alpha", alpha, "real", like)
    alpha = savable(alpha)
    batch = like.shape[0]
    if alpha.dim() == 0 or alpha.shape == like.shape or alpha.shape == (batch,):
        return alpha
    if alpha.shape == (batch, *[1] * (like.dim() - 1)):
        return alpha.reshape(batch)
    raise ValueError(
        f"alpha: expected a number, a 0-d tensor, shape [{batch}], "
        f"{[batch, *[1] * (like.dim() - 1)]} or {list(like.shape)}, got {list(alpha.shape)}."
    )


def interpolate(
    real: Tensor, fake: Tensor, alpha: Alpha = None, *, rng: torch.Generator | None = None
) -> Tensor:
    """Samples between real and fake ones, in one pass.

    .. math:: \\hat x = \\alpha \\cdot real + (1 - \\alpha) \\cdot fake

    Exact at both ends, differentiable in all three.

    Args:
        real: real samples [B, ...].
        fake: generated samples, alike in shape and device.
        alpha: share of ``real``: a number, a 0-d tensor, one for each sample ([B] or
            [B, 1, ...]), or one for each element. Or what to draw from U[0, 1) on the device of
            ``real``: ``"sample"`` (default, also None), ``"element"`` or ``"batch"``, one for
            all.
        rng: generator for that draw; default is the device's own.

    Returns:
        Tensor like ``real``, in its memory layout and in the wider of both dtypes.

    Raises:
        ValueError: if shapes or devices do not fit, ``alpha`` has another shape, or
            ``rng`` is given with an ``alpha`` that is not drawn.
        TypeError: if an argument is not a floating-point tensor.
    """
    real, fake = _checked_images(real, fake)
    _check_alpha(alpha)
    _check_rng(alpha, rng)
    return ops.interpolate(real, fake, _alpha_tensor(alpha, real, rng))


def _check_rng(alpha: Alpha, rng: torch.Generator | None) -> None:
    if rng is not None and not isinstance(rng, torch.Generator):
        raise TypeError(f"rng: expected a torch.Generator, got {describe(rng)}.")
    if rng is not None and alpha is not None and not isinstance(alpha, str):
        raise ValueError("rng: alpha is given, so nothing is drawn; leave one of them out.")


def as_samples(name: str, samples: object) -> tuple[Tensor, ...]:
    """One input of a critic, or several, as a tuple of batches alike in batch size."""
    if isinstance(samples, Tensor):
        listed: tuple[Tensor, ...] = (samples,)
    elif isinstance(samples, (list, tuple)) and samples:
        listed = tuple(samples)
    else:
        raise TypeError(
            f"{name}: expected a tensor or a sequence of tensors, got {describe(samples)}."
        )
    for k, tensor in enumerate(listed):
        label = name if len(listed) == 1 else f"{name}[{k}]"
        if len(listed) > 1 and isinstance(tensor, Tensor) and not tensor.is_floating_point():
            raise TypeError(
                f"{label}: expected floating-point samples, of whose gradient the norm is taken, "
                f"got {tensor.dtype}. Labels and the like go into critic_args."
            )
        check_tensor(label, tensor)
        if tensor.dim() == 0:
            raise ValueError(f"{label}: expected a batch of samples, got a 0-d tensor.")
        if tensor.shape[0] != listed[0].shape[0]:
            raise ValueError(
                f"{label}: expected the batch size of {name}[0], {listed[0].shape[0]}, got "
                f"{tensor.shape[0]}."
            )
        if tensor.shape[0] == 0:
            raise ValueError(
                f"{label}: expected at least one sample, got shape {list(tensor.shape)}. Leave the "
                "penalty out of a step without samples."
            )
    return listed


def penalty_points(
    real: Samples | None,
    fake: Samples | None,
    at: Where | None,
    alpha: Alpha,
    rng: torch.Generator | None,
) -> tuple[Tensor, ...]:
    """The points at which :func:`gradient_penalty` asks for the gradient, one for each input."""
    if at is None:
        raise ValueError(
            "at: a NormPenalty does not say where the gradient is taken; choose one of "
            f"{', '.join(PLACES)}, or AroundReal()."
        )
    if not isinstance(at, AroundReal):
        check_choice("at", at, PLACES)
    _check_alpha(alpha)
    # The noise around real samples is drawn even where alpha is given.
    _check_rng(alpha if at == "mixed" else None, rng)
    for name, value, needed in (
        ("real", real, at != "fake"),
        ("fake", fake, at in ("mixed", "fake")),
    ):
        if value is None and needed:
            raise ValueError(f"{name}: at={at!r} needs {name} samples, got None.")
    if at == "fake":
        return as_samples("fake", fake)
    reals = as_samples("real", real)
    if at == "real":
        return reals
    if isinstance(at, AroundReal):
        pairs = [(r, at.noisy(r, rng)) for r in reals]
    else:
        fakes = as_samples("fake", fake)
        if len(fakes) != len(reals):
            raise ValueError(f"fake: expected {len(reals)} inputs like real, got {len(fakes)}.")
        pairs = [_checked_images(r, f) for r, f in zip(reals, fakes)]
    if (alpha is None or isinstance(alpha, str)) and alpha != "element":
        # One draw for all inputs of a sample.
        alpha = _alpha_tensor(alpha, reals[0], rng)
    return tuple(ops.interpolate(r, f, _alpha_tensor(alpha, r, rng)) for r, f in pairs)
