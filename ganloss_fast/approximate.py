"""Approximated R1: a finite difference instead of a double backward."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ganloss_fast import ops
from ganloss_fast.checks import (
    Weight,
    check_choice,
    check_number,
    check_same_device,
    check_tensor,
    check_weight,
    describe,
)
from ganloss_fast.critic_gradient import as_logits
from ganloss_fast.terms import compute_dtype

Normalization = Literal["mean", "sigma", "sample_sum"]


def perturb(inputs: Tensor, sigma: float, seed: Tensor) -> Tensor:
    """Adds normal noise that depends on nothing but the seed and the element's index.

    .. math:: inputs + sigma \\cdot n, \\qquad n \\sim N(0, 1)

    The random words (Philox4x32-10; Salmon et al., 2011) are the same on every backend and
    device, the normals agree to 4 units in the last place. Indices are row-major whatever the
    memory layout; in another layout than that, the samples are copied. The gradient passes through.

    Args:
        inputs: tensor of any shape.
        sigma: standard deviation of the noise.
        seed: one int64 element on the device of ``inputs``. The kernel reads it there, so nothing
            waits for it, and a captured CUDA graph or a compiled step can take a new one each time.

    Returns:
        Tensor like ``inputs``, in its dtype (the sum is float32 for half, rounded once) and memory
        layout.

    Raises:
        ValueError: if the seed lies on another device or has several elements.
        TypeError: if the seed is not an int64 tensor.
    """
    check_tensor("inputs", inputs)
    sigma = check_number("sigma", sigma)
    if not isinstance(seed, Tensor) or seed.dtype != torch.int64:
        raise TypeError(f"seed: expected an int64 tensor, got {describe(seed)}.")
    if seed.numel() != 1:
        raise ValueError(f"seed: expected one element, got shape {list(seed.shape)}.")
    check_same_device("seed", seed, "inputs", inputs)
    return ops.perturb(inputs, sigma, seed)


def _critic_dtype(inputs: Tensor) -> torch.dtype:
    """The precision in which the critic sees the noise, as far as one can tell."""
    device = inputs.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return inputs.dtype


def _warn_if_lost(sigma: float, dtype: torch.dtype, name: str) -> None:
    if sigma < 8 * torch.finfo(dtype).eps:
        warnings.warn(
            f"sigma: {sigma} is too small for a critic in {name}, whose rounding of samples and "
            f"logits is of the same size: the penalty will be too large (+50 % measured for "
            f"sigma 0.01 in bfloat16). Use sigma >= {8 * torch.finfo(dtype).eps:.3g} or run the "
            "critic in float32 here.",
            stacklevel=3,
        )


def approximate_r1_penalty(
    critic: Callable[..., Any],
    inputs: Tensor,
    sigma: float = 0.01,
    *,
    critic_args: Sequence = (),
    critic_kwargs: Mapping | None = None,
    weight: Weight = 100.0,
    normalization: Normalization = "mean",
    logits: Tensor | Sequence[Tensor] | None = None,
    single_forward: bool = False,
    seed: Tensor | None = None,
) -> Tensor:
    """Approximated R1 (APT; Lin et al., 2025): needs no double backward.

    .. math:: weight \\cdot E[(D(x) - D(x + \\sigma n))^2], \\qquad n \\sim N(0, 1)

    For critics that cannot be differentiated twice (flash attention, FSDP) or are compiled. For
    small sigma, ``weight * sigma**2 = gamma / 2`` of exact R1. The same function on generated
    samples is the approximated R2. The difference is taken in float32 whatever the precision of
    the logits, and the gradient flows through both logits.

    Args:
        critic: called as ``critic(x, *critic_args, **critic_kwargs)``; returns a tensor of
            logits or a flat list of them.
        inputs: samples [B, ...].
        sigma: deviation of the noise: 0.01 for images and 0.1 for videos in APT.
        weight: a number or a 0-d tensor.
        normalization: ``"mean"`` of the squared difference over all logits (APT, FastGen);
            ``"sigma"``, the same divided by sigma^2 (Self-Forcing); ``"sample_sum"``, summed
            over a sample's logits, mean over samples (stable-audio-tools).
        logits: the critic's outputs on ``inputs``, if the step has them: saves a forward pass.
        single_forward: run the critic once on both, concatenated. Not with ``logits``. Tensors
            among the critic's further arguments that have the batch size are doubled.
        seed: int64 tensor with one element; None draws one on the device.

    Returns:
        0-d tensor, float32 (float64 for float64 logits).

    Raises:
        ValueError: if options contradict each other or ``sigma`` is not positive.
        TypeError: if the critic does not return a tensor or a flat list of tensors.
    """
    check_weight("weight", weight)
    check_choice("normalization", normalization, ("mean", "sigma", "sample_sum"))
    check_tensor("inputs", inputs)
    if inputs.dim() == 0:
        raise ValueError("inputs: expected a batch of samples, got a 0-d tensor.")
    if check_number("sigma", sigma) <= 0:
        raise ValueError(f"sigma: expected a number > 0, got {sigma}.")
    if single_forward and logits is not None:
        raise ValueError("single_forward: the logits are given, so there is only one forward.")
    if seed is None:
        seed = torch.randint(2**63 - 1, (), device=inputs.device, dtype=torch.int64)
    noisy = perturb(inputs, sigma, seed)
    kwargs = critic_kwargs or {}

    if single_forward:
        batch = inputs.shape[0]
        args = [_doubled(value, batch) for value in critic_args]
        kwargs = {name: _doubled(value, batch) for name, value in kwargs.items()}
        both = as_logits(critic(torch.cat([inputs, noisy]), *args, **kwargs))
        pairs = [(joint[:batch], joint[batch:]) for joint in both]
    else:
        clean = as_logits(critic(inputs, *critic_args, **kwargs) if logits is None else logits)
        moved = as_logits(critic(noisy, *critic_args, **kwargs))
        if len(clean) != len(moved):
            raise ValueError(
                f"logits: expected {len(moved)} outputs as the critic returns, got {len(clean)}."
            )
        pairs = list(zip(clean, moved))
    precision = torch.promote_types(_critic_dtype(inputs), torch.float16)
    for dtype in {precision, pairs[0][0].dtype}:
        _warn_if_lost(sigma, dtype, str(dtype))
    return weight * _difference(pairs, sigma, normalization)


def _doubled(value: Any, batch: int) -> Any:
    if isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == batch:
        return torch.cat([value, value])
    return value


def _difference(pairs: Sequence[tuple[Tensor, Tensor]], sigma: float, normalization: str) -> Tensor:
    total: Tensor | None = None
    for clean, moved in pairs:
        if clean.shape != moved.shape:
            raise ValueError(
                f"logits: expected shape {list(moved.shape)} as the critic returns, got "
                f"{list(clean.shape)}."
            )
        dtype = compute_dtype(clean.dtype)
        squares = (clean.to(dtype) - moved.to(dtype)).square()
        value = squares.sum() / clean.shape[0] if normalization == "sample_sum" else squares.mean()
        total = value if total is None else total + value
    assert total is not None
    return total / sigma**2 if normalization == "sigma" else total
