"""rosinality/stylegan2-pytorch: the loss functions of ``train.py``."""

from __future__ import annotations

from torch import Tensor

from ganloss_fast.compat._penalties import path_length, squared_gradient_norm
from ganloss_fast.losses.adversarial import discriminator_loss, generator_loss


def d_logistic_loss(real_pred: Tensor, fake_pred: Tensor) -> Tensor:
    """``E[softplus(-r)] + E[softplus(f)]``, 0-d, in one call."""
    return discriminator_loss(real_pred, fake_pred, "bce")


def d_r1_loss(real_pred: Tensor, real_img: Tensor) -> Tensor:
    """R1 without a factor, ``mean_i sum g_i^2``, of logits that the step has already.

    The trainer's factors and its ``0 * real_pred[0]`` stay outside.

    Args:
        real_pred: logits, with their graph.
        real_img: what they were computed from, [B, ...], requiring grad before.
    """
    return squared_gradient_norm(real_pred, real_img)


def g_nonsaturating_loss(fake_pred: Tensor) -> Tensor:
    """``E[softplus(-f)]``, 0-d."""
    return generator_loss(fake_pred, "bce")


def g_path_regularize(
    fake_img: Tensor, latents: Tensor, mean_path_length: float | Tensor, decay: float = 0.01
) -> tuple[Tensor, Tensor, Tensor]:
    """Path length regularisation without a weight (Karras et al., 2020).

    Args:
        fake_img: generated images [B, C, H, W], with their graph.
        latents: what they were made from, [B, layers, D], requiring grad.
        mean_path_length: moving average: a number, or the 0-d tensor of the last call.
        decay: share of this batch in the average.

    Returns:
        The penalty; the new moving average, detached; the lengths [B], detached. **This order is
        rosinality's own.**
    """
    penalty, mean, lengths = path_length(fake_img, latents, mean_path_length, decay)
    return penalty, mean, lengths
