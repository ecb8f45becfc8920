"""Drop-in for the loss lines of PyTorch-GAN (eriklindernoren), whose scripts hold them inline.

Each function is one script's lines with its names. Scripts that draw with NumPy on the host draw
here with torch on the device: give ``alpha`` to replay a run. Their discriminator steps mostly hand
generated images over with their graph; pass ``gen_imgs.detach()``, and the backward does not run
through the generator.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ganloss_fast.compat._toolkits import check_pair, pulling_away
from ganloss_fast.losses.adversarial import discriminator_loss, generator_loss
from ganloss_fast.losses.table import BCE
from ganloss_fast.ops.terms import compute_dtype
from ganloss_fast.penalties.gradient_penalty import gradient_penalty, penalty_from_logits
from ganloss_fast.penalties.points import AroundReal
from ganloss_fast.penalties.table import WGANGP, Dragan, NormPenalty

__all__ = [
    "compute_div_gp",
    "compute_dragan_penalty",
    "compute_gradient_penalty",
    "pullaway_loss",
    "relativistic_d_loss",
    "relativistic_g_loss",
    "softmax_d_loss",
    "softmax_g_loss",
]


def compute_gradient_penalty(
    D: Callable[[Tensor], Tensor],  # their name
    real_samples: Tensor,
    fake_samples: Tensor,
    alpha: Tensor | None = None,
) -> Tensor:
    """wgan_gp.py, dualgan.py: ``E[(|g| - 1)^2]``; ``lambda_gp`` is yours, outside.

    ``alpha`` is the share of real, [B] or [B, 1, 1, 1].
    """
    return gradient_penalty(
        D, real_samples.detach(), fake_samples.detach(), WGANGP(1.0), alpha=alpha
    )


def compute_dragan_penalty(
    D: Callable[[Tensor], Tensor],
    X: Tensor,
    lambda_gp: float = 10,
    alpha: Tensor | None = None,
) -> Tensor:
    """dragan.py: ``lambda_gp E[(|g|_c - 1)^2]``, with the norm over channels, around real ones.

    The script's own name for it is ``compute_gradient_penalty``, which wgan_gp.py's has here.
    ``alpha``, one for each element, is the share of the real sample.
    """
    return gradient_penalty(
        D,
        X.detach(),
        penalty=Dragan(lambda_gp, norm="channel"),
        at=AroundReal(),
        alpha="element" if alpha is None else alpha,
    )


def compute_div_gp(
    real_imgs: Tensor,
    real_validity: Tensor,
    fake_imgs: Tensor,
    fake_validity: Tensor,
    k: float = 2,
    p: float = 6,
) -> Tensor:
    """wgan_div.py: ``E[|g_r|^p + |g_f|^p] k / 2`` of logits that the step has.

    Both images must have required grad before the discriminator saw them.
    """
    penalty = NormPenalty(k / 2, power=p)
    of_real = penalty_from_logits(real_validity, real_imgs, penalty)
    return of_real + penalty_from_logits(fake_validity, fake_imgs, penalty)


# ---- relativistic_gan.py -----------------------------------------------------------------------


def _relative(one: Tensor, other: Tensor, average: bool) -> Tensor:
    """The mean is over the batch alone, as the script's: for [B, 1] that is all there is."""
    return one - (other.mean(0, keepdim=True) if average else other)


def relativistic_d_loss(real_pred: Tensor, fake_pred: Tensor, rel_avg_gan: bool = False) -> Tensor:
    """``(bce(r - f, 1) + bce(f - r, 0)) / 2``, or against the mean of the other side."""
    real, fake = check_pair(("real_pred", "fake_pred"), real_pred, fake_pred)
    if not rel_avg_gan:  # both summands are softplus(f - r)
        return discriminator_loss(real, fake, BCE(relativistic="paired"))
    relative = _relative(real, fake, True), _relative(fake, real, True)
    return discriminator_loss(*relative, "bce", real_weight=0.5, fake_weight=0.5)


def relativistic_g_loss(real_pred: Tensor, fake_pred: Tensor, rel_avg_gan: bool = False) -> Tensor:
    """``bce(f - r, 1)``, or against the mean of real; no gradient flows to ``real_pred``."""
    real, fake = check_pair(("real_pred", "fake_pred"), real_pred.detach(), fake_pred)
    return generator_loss(_relative(fake, real, rel_avg_gan), "bce")


# ---- softmax_gan.py and ebgan.py; plain PyTorch ------------------------------------------------


def _log_partition(d_real: Tensor, d_fake: Tensor) -> Tensor:
    """``log(sum e^-r + sum e^-f)``. The script's log of a sum overflows at logits of -89."""
    logits = torch.cat([d_real.reshape(-1), d_fake.reshape(-1)])
    return logits.to(compute_dtype(logits.dtype)).neg().logsumexp(0)


def softmax_d_loss(d_real: Tensor, d_fake: Tensor) -> Tensor:
    """``sum(r) / B + log Z`` with ``Z = sum e^-r + sum e^-f`` (Lin, 2017)."""
    return d_real.sum() / d_real.shape[0] + _log_partition(d_real, d_fake)


def softmax_g_loss(d_real: Tensor, d_fake: Tensor) -> Tensor:
    """``(sum(r) + sum(f)) / (2 B) + log Z``."""
    total = (d_real.sum() + d_fake.sum()) / (2 * d_real.shape[0])
    return total + _log_partition(d_real, d_fake)


def pullaway_loss(embeddings: Tensor) -> Tensor:
    """``(sum(S) - B) / (B (B - 1))`` with cosines ``S`` of the embeddings [B, D]."""
    count = embeddings.shape[0]
    return (pulling_away(embeddings, axis=-1).sum() - count) / (count * (count - 1))
