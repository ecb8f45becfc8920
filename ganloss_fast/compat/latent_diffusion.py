"""latent-diffusion and generative-models (CompVis, Stability AI): ``modules/losses``.

taming's functions, and a hinge loss with a weight for each sample. Both codebases learn the
variance of the reconstruction: hand it to ``balanced_backward`` as ``loss_parameters=[logvar]``.
"""

from __future__ import annotations

from torch import Tensor

from ganloss_fast.checks import check_tensor, describe
from ganloss_fast.compat.taming import (
    adopt_weight,
    calculate_adaptive_weight,
    hinge_d_loss,
    vanilla_d_loss,
)
from ganloss_fast.losses.adversarial import discriminator_loss

__all__ = [
    "adopt_weight",
    "calculate_adaptive_weight",
    "hinge_d_loss",
    "hinge_d_loss_with_exemplar_weights",
    "vanilla_d_loss",
]


def hinge_d_loss_with_exemplar_weights(
    logits_real: Tensor, logits_fake: Tensor, weights: Tensor
) -> Tensor:
    """The hinge loss with means over samples that are weighted by ``weights`` [B].

    .. math:: \\tfrac12 \\, \\frac{\\sum_b w_b \\, E_b[max(0, 1 - r)]}{\\sum_b w_b} +
        \\tfrac12 \\, \\frac{\\sum_b w_b \\, E_b[max(0, 1 + f)]}{\\sum_b w_b}

    Raises:
        ValueError: if there is not one weight for each sample of both sides.
    """
    samples = check_tensor("weights", weights).shape
    for name, logits in (("logits_real", logits_real), ("logits_fake", logits_fake)):
        if check_tensor(name, logits).shape[:1] != samples:
            raise ValueError(
                f"weights: expected one for each sample of {name}, which is {describe(logits)}, "
                f"got {describe(weights)}."
            )
    shares = weights / weights.mean()

    def mask(logits: Tensor) -> Tensor:
        return shares.view(-1, *[1] * (logits.dim() - 1))

    return discriminator_loss(
        logits_real,
        logits_fake,
        "hinge",
        real_weight=0.5,
        fake_weight=0.5,
        real_mask=mask(logits_real),
        fake_mask=mask(logits_fake),
    )
