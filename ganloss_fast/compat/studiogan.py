"""StudioGAN (POSTECH-CVLab/PyTorch-StudioGAN): ``src/utils/losses.py``.

Discriminators of this codebase are called as ``discriminator(images, labels, eval=False)`` and
return a dict, of which ``"adv_output"`` are the logits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ganloss_fast.compat._penalties import path_length, penalty_between, squared_gradient_norm
from ganloss_fast.compat.lecam import ema_losses
from ganloss_fast.losses.adversarial import (
    discriminator_loss,
    generator_loss,
)
from ganloss_fast.losses.contrastive import multi_hinge_loss
from ganloss_fast.losses.lecam import lecam_regularization
from ganloss_fast.losses.matching import feature_matching_loss as _feature_matching_loss
from ganloss_fast.penalties.gradient_penalty import gradient_penalty
from ganloss_fast.penalties.table import PENALTIES, WGANGP

Discriminator = Callable[..., Mapping[str, Tensor]]

# ---- logit losses: 0-d, in one call; DDP is not used -------------------------------------------


def d_vanilla(d_logit_real: Tensor, d_logit_fake: Tensor, DDP: bool = False) -> Tensor:
    """``E[softplus(-r)] + E[softplus(f)]``."""
    return discriminator_loss(d_logit_real, d_logit_fake, "bce")


def g_vanilla(d_logit_fake: Tensor, DDP: bool = False) -> Tensor:
    """``E[softplus(-f)]``."""
    return generator_loss(d_logit_fake, "bce")


def d_logistic(d_logit_real: Tensor, d_logit_fake: Tensor, DDP: bool = False) -> Tensor:
    """``E[softplus(-r) + softplus(f)]``: :func:`d_vanilla`."""
    return d_vanilla(d_logit_real, d_logit_fake)


def g_logistic(d_logit_fake: Tensor, DDP: bool = False) -> Tensor:
    """:func:`g_vanilla`."""
    return g_vanilla(d_logit_fake)


def d_ls(d_logit_real: Tensor, d_logit_fake: Tensor, DDP: bool = False) -> Tensor:
    """``E[(r - 1)^2] / 2 + E[f^2] / 2``."""
    return discriminator_loss(
        d_logit_real, d_logit_fake, "least_squares", real_weight=0.5, fake_weight=0.5
    )


def g_ls(d_logit_fake: Tensor, DDP: bool = False) -> Tensor:
    """``E[(f - 1)^2] / 2``."""
    return generator_loss(d_logit_fake, "least_squares", weight=0.5)


def d_hinge(d_logit_real: Tensor, d_logit_fake: Tensor, DDP: bool = False) -> Tensor:
    """``E[max(0, 1 - r)] + E[max(0, 1 + f)]``."""
    return discriminator_loss(d_logit_real, d_logit_fake, "hinge")


def g_hinge(d_logit_fake: Tensor, DDP: bool = False) -> Tensor:
    """``-E[f]``."""
    return generator_loss(d_logit_fake, "hinge")


def d_wasserstein(d_logit_real: Tensor, d_logit_fake: Tensor, DDP: bool = False) -> Tensor:
    """``E[f] - E[r]``."""
    return discriminator_loss(d_logit_real, d_logit_fake, "wasserstein")


def g_wasserstein(d_logit_fake: Tensor, DDP: bool = False) -> Tensor:
    """``-E[f]``."""
    return generator_loss(d_logit_fake, "wasserstein")


def crammer_singer_loss(adv_output: Tensor, label: Tensor, DDP: bool = False, **_: Any) -> Tensor:
    """``E[max(0, 1 + max_{j != y} x_j - x_y)]`` of logits [B, C], the loss of ``MH``."""
    return multi_hinge_loss(adv_output, label)


def lecam_reg(d_logit_real: Tensor, d_logit_fake: Tensor, ema: LeCamEMA) -> Tensor:
    """``E[max(0, r - ema f)^2] + E[max(0, ema r - f)^2]``; lambda is yours."""
    return lecam_regularization(d_logit_real, d_logit_fake, ema.D_real, ema.D_fake)


class LeCamEMA(ema_losses):
    """The averages of ``src/utils/ema.py``: numbers, or 0-d tensors once they are moved by one."""

    def __init__(self, init: float = 7777, decay: float = 0.9, start_iter: int = 0) -> None:
        super().__init__(init, decay, start_iter)


def feature_matching_loss(real_embed: Tensor, fake_embed: Tensor) -> Tensor:
    """``E[|mean_i fake_i - mean_i real_i|]`` of embeddings [B, ...], 0-d; neither is detached."""
    real, fake = real_embed.mean(0), fake_embed.mean(0)
    return _feature_matching_loss([real], [fake], detach_real=False)


def adjust_k(current_k: float, topk_gamma: float, inf_k: float) -> float:
    """The next k of top-k training: ``max(current_k * topk_gamma, inf_k)``."""
    return max(current_k * topk_gamma, inf_k)


# ---- penalties, without a weight ---------------------------------------------------------------


def _critic(discriminator: Discriminator, labels: Any) -> Callable[[Tensor], Tensor]:
    return lambda images: discriminator(images, labels, eval=False)["adv_output"]


def cal_deriv(inputs: Tensor, outputs: Tensor, device: torch.device | str | int) -> Tensor:
    """The gradient of the sum of outputs with respect to inputs, with its graph."""
    (gradient,) = torch.autograd.grad(outputs.sum(), inputs, create_graph=True)
    return gradient


def cal_grad_penalty(
    real_images: Tensor,
    real_labels: Any,
    fake_images: Tensor,
    discriminator: Discriminator,
    device: torch.device | str | int,
) -> Tensor:
    """``E_i[(|g_i| - 1)^2]`` between real and fake images, 0-d.

    Alpha [B, 1] is the share of real and drawn on the CPU. No gradient reaches the images.

    Args:
        real_images: [B, C, H, W].
        real_labels: the discriminator's second argument.
        fake_images: alike in shape.
        discriminator: see the module.
        device: where the images are moved to.
    """
    critic = _critic(discriminator, real_labels)
    return penalty_between(critic, real_images.to(device), fake_images.to(device), WGANGP(1.0))


def cal_dra_penalty(
    real_images: Tensor,
    real_labels: Any,
    discriminator: Discriminator,
    device: torch.device | str | int,
) -> Tensor:
    """``E_i[(|g_i| - 1)^2]`` at ``real + alpha std(real) / 2 U``, 0-d (Kodali et al., 2017).

    Alpha, one a sample, and then ``U``, one an element, are drawn on the CPU. See
    :func:`cal_grad_penalty` for the arguments.
    """
    alpha = torch.rand(real_images.shape[0], 1, 1, 1).to(device)
    real = real_images.detach().to(device)
    noise = 0.5 * real.std() * torch.rand(real.shape).to(device)
    points = real + alpha * noise
    return gradient_penalty(
        _critic(discriminator, real_labels), points, penalty=WGANGP(1.0), at="real"
    )


def cal_maxgrad_penalty(
    real_images: Tensor,
    real_labels: Any,
    fake_images: Tensor,
    discriminator: Discriminator,
    device: torch.device | str | int,
) -> Tensor:
    """``max_i |g_i|^2`` between real and fake images, 0-d (Zhou et al., 2019).

    See :func:`cal_grad_penalty` for the arguments.
    """
    critic = _critic(discriminator, real_labels)
    penalty = PENALTIES["max-gp"].penalty
    return penalty_between(critic, real_images.to(device), fake_images.to(device), penalty)


def cal_r1_reg(
    adv_output: Tensor, images: Tensor, device: torch.device | str | int | None = None
) -> Tensor:
    """``E_i[sum g_i^2] / 2``, 0-d, of logits that the step has already.

    Args:
        adv_output: logits, with their graph.
        images: what they were computed from, [B, C, H, W], requiring grad before.
        device: not used.
    """
    # The zero lets whatever the images were computed from keep a gradient.
    return squared_gradient_norm(adv_output, images, 0.5) + images[:, 0, 0, 0].mean() * 0


def stylegan_cal_r1_reg(adv_output: Tensor, images: Tensor) -> Tensor:
    """:func:`cal_r1_reg`, as its StyleGANs call it."""
    return squared_gradient_norm(adv_output, images, 0.5)


class PathLengthRegularizer:
    """Path length regularisation (StyleGAN2; Karras et al., 2020).

    Args:
        device: where the moving average lies.
        pl_decay: share of a batch in the moving average.
        pl_weight: weight of the penalty.
        pl_no_weight_grad: not used: PyTorch leaves out weight gradients that nobody asks for.

    Attributes:
        pl_mean: 0-d tensor, the moving average, changed in place.
    """

    def __init__(
        self,
        device: torch.device | str | int,
        pl_decay: float = 0.01,
        pl_weight: float = 2,
        pl_no_weight_grad: bool = False,
    ) -> None:
        self.pl_decay = pl_decay
        self.pl_weight = pl_weight
        self.pl_mean = torch.zeros([], device=device)
        self.pl_no_weight_grad = pl_no_weight_grad

    def cal_pl_reg(self, fake_images: Tensor, ws: Tensor) -> Tensor:
        """``pl_weight E_i[(l_i - mean)^2]``, 0-d.

        Args:
            fake_images: [B, C, H, W], with their graph.
            ws: what they were made from, [B, layers, D], requiring grad.
        """
        result = path_length(fake_images, ws, self.pl_mean, self.pl_decay, self.pl_weight)
        self.pl_mean.copy_(result.mean)
        return result.penalty
