"""TiTok and MaskBit (bytedance/1d-tokenizer): ``modeling/modules/losses.py``."""

from __future__ import annotations

from torch import Tensor

from ganloss_fast.compat.taming import hinge_d_loss
from ganloss_fast.losses.lecam import lecam_regularization

__all__ = ["compute_lecam_loss", "hinge_d_loss"]


def compute_lecam_loss(
    logits_real_mean: Tensor,
    logits_fake_mean: Tensor,
    ema_logits_real_mean: Tensor,
    ema_logits_fake_mean: Tensor,
) -> Tensor:
    """``max(0, r - ema f)^2 + max(0, ema r - f)^2`` of mean logits.

    The codebase keeps the averages itself, and moves them behind this call. No gradient flows to
    them. :class:`ganloss_fast.LeCam` does both.
    """
    return lecam_regularization(
        logits_real_mean, logits_fake_mean, ema_logits_real_mean, ema_logits_fake_mean
    )
