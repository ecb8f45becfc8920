"""Gradient penalties and the interpolation they are taken at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ganloss_fast import ops
from ganloss_fast.checks import (
    Weight,
    check_number,
    check_same_device,
    check_tensor,
    check_weight,
    describe,
)

Alpha = float | Tensor | None


def _check_images(real: Tensor, fake: Tensor) -> None:
    check_tensor("real", real)
    check_tensor("fake", fake)
    if real.dim() == 0:
        raise ValueError("real: expected a batch of samples, got a 0-d tensor.")
    if real.shape != fake.shape:
        raise ValueError(
            f"fake: expected the shape of real, {list(real.shape)}, got {list(fake.shape)}."
        )
    if real.dtype != fake.dtype:
        raise ValueError(f"fake: expected the dtype of real, {real.dtype}, got {fake.dtype}.")
    check_same_device("fake", fake, "real", real)


def _alpha_tensor(alpha: Alpha, like: Tensor, rng: torch.Generator | None) -> Tensor:
    """alpha as the op takes it: 0-d, [B], or shaped like the samples."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    if alpha is None:
        return torch.rand(like.shape[0], generator=rng, device=like.device, dtype=dtype)
    if rng is not None:
        raise ValueError("rng: alpha is given, so nothing is drawn; leave one of them out.")
    if not isinstance(alpha, Tensor):
        return torch.full((), check_number("alpha", alpha), device=like.device, dtype=dtype)
    check_tensor("alpha", alpha)
    check_same_device("alpha", alpha, "real", like)
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
        fake: generated samples, alike in shape, dtype and device.
        alpha: share of ``real``: a number, a 0-d tensor, one for each sample ([B] or
            [B, 1, ...]), or one for each element. None draws one for each sample from U[0, 1)
            on the device of ``real``.
        rng: generator for that draw; default is the device's own.

    Returns:
        Tensor like ``real``, in its dtype and memory layout.

    Raises:
        ValueError: if shapes, dtypes or devices do not fit, or ``alpha`` has another shape.
        TypeError: if an argument is not a floating-point tensor.
    """
    _check_images(real, fake)
    return ops.interpolate(real, fake, _alpha_tensor(alpha, real, rng))


def _input_gradient(
    critic: Callable[..., Tensor], x: Tensor, args: Sequence, kwargs: Mapping
) -> Tensor:
    """The gradient of ``critic(x).sum()`` with respect to x, itself differentiable."""
    with torch.enable_grad():
        if not x.requires_grad:
            x = x.detach().requires_grad_(True)
        logits = critic(x, *args, **kwargs)
        if not isinstance(logits, Tensor):
            raise TypeError(
                f"critic: expected it to return one tensor of logits, got {describe(logits)}. "
                "Wrap it, for example lambda x: critic(x)[-1]."
            )
        if not logits.requires_grad:
            raise ValueError(
                "critic: its output does not depend on its input through autograd; it may be "
                "detached, or computed under no_grad."
            )
        (gradient,) = torch.autograd.grad(
            logits, x, torch.ones_like(logits), create_graph=True, allow_unused=True
        )
    if gradient is None:
        raise ValueError("critic: its output does not depend on its input.")
    return gradient


def gradient_penalty(
    critic: Callable[..., Tensor],
    real: Tensor,
    fake: Tensor,
    *,
    critic_args: Sequence = (),
    critic_kwargs: Mapping | None = None,
    weight: Weight = 10.0,
    target: float = 1.0,
    one_sided: bool = False,
    alpha: Alpha = None,
    rng: torch.Generator | None = None,
) -> Tensor:
    """Gradient penalty between real and fake samples (WGAN-GP; Gulrajani et al., 2017).

    .. math:: weight \\cdot E_i[(\\|\\nabla_{\\hat x} D(\\hat x)_i\\|_2 - target)^2]

    with the norm over a whole sample, accumulated in float32 (float64 for float64). A sample
    whose gradient is 0 adds ``target^2`` and no gradient, never NaN.

    Args:
        critic: called as ``critic(x_hat, *critic_args, **critic_kwargs)``; returns one tensor
            of logits, of which the sum over everything is differentiated.
        real: real samples [B, ...].
        fake: generated samples, alike in shape, dtype and device. Detach them in a critic step.
        critic_args: further arguments of the critic, such as labels.
        critic_kwargs: its keyword arguments.
        weight: lambda; a number or a 0-d tensor.
        target: the norm that is asked for.
        one_sided: penalise only norms above ``target`` (Petzka et al., 2018).
        alpha: see :func:`interpolate`.
        rng: see :func:`interpolate`.

    Returns:
        0-d tensor, float32 (float64 for float64 samples), to be added to the critic's loss.

    Raises:
        ValueError: if samples do not fit each other, ``alpha`` has another shape, or the
            critic's output does not depend on its input.
        TypeError: if the critic does not return one tensor.
    """
    check_weight("weight", weight)
    target = check_number("target", target)
    x_hat = interpolate(real, fake, alpha, rng=rng)
    gradient = _input_gradient(critic, x_hat, critic_args, critic_kwargs or {})
    mode = "one_sided" if one_sided else "two_sided"
    if isinstance(weight, Tensor):
        return weight * ops.gradient_penalty_loss(gradient, mode, target, 1.0)[0]
    return ops.gradient_penalty_loss(gradient, mode, target, float(weight))[0]
