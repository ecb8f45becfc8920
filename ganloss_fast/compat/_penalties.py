"""What the penalties of image codebases share: how they draw, and one path length for all."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ganloss_fast.checks import Weight, check_tensor
from ganloss_fast.penalties.critic.call import Critic, InvScale
from ganloss_fast.penalties.gradient_penalty import gradient_penalty, penalty_from_logits
from ganloss_fast.penalties.path_length import PathLength, PathLengths
from ganloss_fast.penalties.table import NormPenalty, PenaltyLike

SQUARED_NORM = NormPenalty()  # mean over samples of the squared norm: R1 without its gamma / 2


def penalty_between(
    critic: Critic,
    real: Tensor,
    fake: Tensor,
    penalty: PenaltyLike,
    weight: Weight = 1.0,
    mask: Tensor | None = None,
) -> Tensor:
    """A penalty between real and fake samples, to neither of which it sends a gradient. The shares
    of real, one a sample, are drawn on the CPU whatever the device, as many codebases do."""
    alpha = torch.rand(check_tensor("real", real).shape[0]).to(real)
    return gradient_penalty(
        critic,
        real.detach(),
        fake.detach(),
        penalty,
        at="mixed",
        alpha=alpha,
        weight=weight,
        mask=mask,
    )


def squared_gradient_norm(logits: Tensor, inputs: Tensor, weight: Weight = 1.0) -> Tensor:
    """R1 as codebases write it, ``weight * mean_i sum g_i^2``, of logits that are there already."""
    return penalty_from_logits(logits, inputs, SQUARED_NORM, weight=weight)


def path_lengths(
    images: Tensor, latents: Tensor, mean: float | Tensor, inv_scale: InvScale = None
) -> PathLengths:
    """Path lengths with the noise drawn as everybody draws it, in the layout of the images. A
    training starts from the number 0 as its mean."""
    noise = torch.randn_like(images) / math.sqrt(images.shape[2] * images.shape[3])
    if not isinstance(mean, Tensor):
        mean = images.new_full((), mean)
    return PathLengths(images, latents, mean, noise=noise, inv_scale=inv_scale)


def path_length(
    images: Tensor, latents: Tensor, mean: float | Tensor, decay: float, weight: Weight = 1.0
) -> PathLength:
    """Path length regularisation of these lengths."""
    found = path_lengths(images, latents, mean)
    return found.about(found.average(decay), weight)
