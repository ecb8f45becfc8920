"""Noisy labels: drawn from an interval, some of them flipped."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ganloss_fast.checks import check_choice, check_number, check_tensor, describe


def noisy_labels(
    logits: Tensor,
    low: float,
    high: float,
    *,
    flip: float = 0.0,
    per: Literal["sample", "element"] = "sample",
    rng: torch.Generator | None = None,
) -> Tensor:
    """Labels from U[low, high), a share of them flipped to ``1 - label``: on the logits' device.

    The recipe of the GAN tutorials (Chintala et al., 2016, How to train a GAN)::

        real_label = gf.noisy_labels(real, 0.7, 1.2, flip=0.05)
        fake_label = gf.noisy_labels(fake, 0.0, 0.3, flip=0.05)
        loss = gf.discriminator_loss(real, fake, gf.BCE(real_label, fake_label))

    Also for :class:`LeastSquares`. ``low == high`` is a constant label with flips.

    Args:
        logits: [B, ...], whose labels are drawn.
        low: lower bound of the labels.
        high: upper bound.
        flip: probability of a flip, in [0, 1].
        per: one label for each ``"sample"``, or for each ``"element"``.
        rng: generator on the device of the logits; default is the device's own.

    Returns:
        Tensor [B, 1, ...], or shaped like the logits; float32, or float64 for float64 logits.

    Raises:
        ValueError: if the bounds are in the wrong order, ``flip`` is no probability, or the logits
            are 0-d.
        TypeError: if the logits are not a floating-point tensor, or ``rng`` is no generator.
    """
    low, high = check_number("low", low), check_number("high", high)
    if low > high:
        raise ValueError(f"low, high: expected the lower bound first, got {(low, high)}.")
    flip = check_number("flip", flip)
    if not 0.0 <= flip <= 1.0:
        raise ValueError(f"flip: expected a probability, got {flip}.")
    check_choice("per", per, ("sample", "element"))
    if rng is not None and not isinstance(rng, torch.Generator):
        raise TypeError(f"rng: expected a torch.Generator, got {describe(rng)}.")
    if check_tensor("logits", logits).dim() == 0:
        raise ValueError("logits: expected a batch of logits, got a 0-d tensor.")
    shape = logits.shape if per == "element" else (logits.shape[0], *[1] * (logits.dim() - 1))
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    draws = torch.rand((2, *shape), generator=rng, device=logits.device, dtype=dtype)
    labels = low + (high - low) * draws[0]
    return torch.where(draws[1] < flip, 1 - labels, labels)
