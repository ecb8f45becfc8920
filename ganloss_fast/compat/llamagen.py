"""LlamaGen (FoundationVision/LlamaGen): ``tokenizer/tokenizer_image/vq_loss.py``.

The published "non-saturating" losses have their arguments the wrong way round: the logits stand
where the targets belong. The discriminator's is then linear in the real logits and constant in
the fake ones, from which it learns nothing. Here they are what their name says, unless a call
says ``reversed_as_published=True``.
"""

from __future__ import annotations

import math

from torch import Tensor

from ganloss_fast.compat.taming import (
    adopt_weight,
    calculate_adaptive_weight,
    hinge_d_loss,
    vanilla_d_loss,
)
from ganloss_fast.losses.adversarial import discriminator_loss, generator_loss

__all__ = [
    "adopt_weight",
    "calculate_adaptive_weight",
    "hinge_d_loss",
    "hinge_gen_loss",
    "non_saturating_d_loss",
    "non_saturating_gen_loss",
    "vanilla_d_loss",
]

# Cross-entropy of the constants 1 and 0, taken for logits, with targets t: softplus(1) - t and
# log 2.
_OF_ONES = math.log1p(math.e)
_OF_ZEROS = math.log(2.0)


def non_saturating_d_loss(
    logits_real: Tensor, logits_fake: Tensor, *, reversed_as_published: bool = False
) -> Tensor:
    """``(E[bce(r, 1)] + E[bce(f, 0)]) / 2``, which is ``vanilla_d_loss``.

    Args:
        logits_real: logits on real images.
        logits_fake: logits on reconstructions.
        reversed_as_published: ``(E[bce(1, r)] + E[bce(0, f)]) / 2``: the value of the codebase,
            and its gradient, which is 0 for the fake logits.
    """
    if not reversed_as_published:
        return vanilla_d_loss(logits_real, logits_fake)
    linear = discriminator_loss(
        logits_real, logits_fake, "wasserstein", real_weight=0.5, fake_weight=0.0
    )
    return linear + 0.5 * (_OF_ONES + _OF_ZEROS)


def hinge_gen_loss(logit_fake: Tensor) -> Tensor:
    """``-E[f]``."""
    return generator_loss(logit_fake, "hinge")


def non_saturating_gen_loss(logit_fake: Tensor, *, reversed_as_published: bool = False) -> Tensor:
    """``E[bce(f, 1)]``.

    Args:
        logit_fake: logits on reconstructions.
        reversed_as_published: ``E[bce(1, f)]``: :func:`hinge_gen_loss` and a constant.
    """
    if not reversed_as_published:
        return generator_loss(logit_fake, "bce")
    return hinge_gen_loss(logit_fake) + _OF_ONES
