"""Critics that judge packs of samples (PacGAN, CTGAN): the pack is the sample of a penalty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ganloss_fast.checks import check_integer, check_tensor, describe


def packs(samples: Tensor, pac: int) -> Tensor:
    """Samples [B, ...] as packs [B / pac, pac, ...], a view: neighbours share a pack.

    ::

        packed = gf.PackedCritic(critic, pac=10)
        penalty = gf.gradient_penalty(packed, gf.packs(real, 10), gf.packs(fake, 10))

    The norm then runs over a pack and ``alpha`` is drawn for each pack, as in CTGAN; on the
    samples themselves the penalty would be another number.

    Args:
        samples: [B, ...], where B is a multiple of ``pac``.
        pac: samples in a pack.

    Raises:
        ValueError: if B is no multiple of ``pac``.
        TypeError: if ``samples`` are not a floating-point tensor.
    """
    pac = check_integer("pac", pac)
    if check_tensor("samples", samples).dim() == 0 or samples.shape[0] % pac != 0:
        raise ValueError(
            f"samples: expected a batch that is a multiple of pac={pac}, got shape "
            f"{list(samples.shape)}."
        )
    packed: Tensor = samples.unflatten(0, (-1, pac))
    return packed


class PackedCritic(torch.nn.Module):
    """A critic of :func:`packs`, around one that takes samples and packs them itself.

    Args:
        critic: called with samples [B, ...] and what else the call has; its first dimension is the
            number of packs.
        pac: samples in a pack.

    Raises:
        ValueError: when it is called with samples that are not packed, or the critic does not
            return one row for each pack: it packs otherwise, or not at all.
        TypeError: when it is made, if the critic is not callable.
    """

    def __init__(self, critic: Callable[..., Any], pac: int) -> None:
        super().__init__()
        if not callable(critic):
            raise TypeError(f"critic: expected a function or a module, got {describe(critic)}.")
        self.critic = critic
        self.pac = check_integer("pac", pac)

    def forward(self, packed: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if packed.dim() < 2 or packed.shape[1] != self.pac:
            raise ValueError(
                f"samples: expected packs [N, {self.pac}, ...], got {list(packed.shape)}. Pass "
                f"packs(samples, {self.pac})."
            )
        logits: Any = self.critic(packed.flatten(0, 1), *args, **kwargs)
        if not isinstance(logits, Tensor):
            raise TypeError(f"critic: expected a tensor of logits, got {describe(logits)}.")
        if logits.dim() == 0 or logits.shape[0] != packed.shape[0]:
            raise ValueError(
                f"critic: expected one row of logits for each of {packed.shape[0]} packs of "
                f"{self.pac}, got shape {list(logits.shape)}. Does it pack its samples?"
            )
        return logits
