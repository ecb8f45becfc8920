"""The functions that loss modules of image tokenizers are made of, as taming wrote them."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from ganloss_fast.losses.adversarial import discriminator_loss

Value = TypeVar("Value")


def hinge_d_loss(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """``(E[max(0, 1 - r)] + E[max(0, 1 + f)]) / 2``, with the half inside."""
    return discriminator_loss(logits_real, logits_fake, "hinge", real_weight=0.5, fake_weight=0.5)


def vanilla_d_loss(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """``(E[softplus(-r)] + E[softplus(f)]) / 2``, with the half inside."""
    return discriminator_loss(logits_real, logits_fake, "bce", real_weight=0.5, fake_weight=0.5)


def adopt_weight(
    weight: Value, global_step: int, threshold: int = 0, value: float = 0.0
) -> Value | float:
    """``weight`` from step ``threshold`` on, ``value`` before."""
    return value if global_step < threshold else weight


def calculate_adaptive_weight(
    nll_loss: Tensor, g_loss: Tensor, last_layer: Tensor, discriminator_weight: float = 1.0
) -> Tensor:
    """``clamp(|d nll / d last| / (|d g / d last| + 1e-4), 0, 1e4) * discriminator_weight``.

    The two gradients walk through the perceptual network and the discriminator, and the backward
    of the sum does it again. The same step without that, where the reconstruction is at hand::

        gf.balanced_backward([nll_loss, g_loss], reconstructions, last_layer,
                             weights=[1.0, disc_factor * discriminator_weight],
                             extra_loss=codebook_weight * codebook_loss)

    Args:
        nll_loss: reconstruction and perceptual loss.
        g_loss: the generator's loss.
        last_layer: the weight of the decoder's last layer.
        discriminator_weight: in the codebase an attribute of the class that has this as method.

    Returns:
        0-d tensor, detached.
    """
    (of_nll,) = torch.autograd.grad(nll_loss, last_layer, retain_graph=True)
    (of_g,) = torch.autograd.grad(g_loss, last_layer, retain_graph=True)
    ratio: Tensor = of_nll.norm() / (of_g.norm() + 1e-4)
    return ratio.clamp(0.0, 1e4).detach() * discriminator_weight
