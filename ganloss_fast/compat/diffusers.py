"""diffusers (huggingface/diffusers): ``examples/vqgan/train_vqgan.py``.

Its hinge loss stands in the script, ``(relu(1 + fake) + relu(1 - real)).mean()``, and is
``gf.discriminator_loss(real, fake, "hinge")``. Its adaptive weight measures the generator's loss by
the perceptual one alone; in one backward that is::

    gf.balanced_backward([perceptual_loss, gen_loss], fmap, last_dec_layer,
                         rule=gf.AdaptiveWeight(epsilon=1e-8, epsilon_as="floor"),
                         extra_loss=loss + commit_loss)
"""

from __future__ import annotations

import torch
from torch import Tensor

from ganloss_fast.penalties.gradient_penalty import penalty_from_logits
from ganloss_fast.penalties.table import NormPenalty

_UNIT_NORM = NormPenalty(target=1.0)


def grad_layer_wrt_loss(loss: Tensor, layer: Tensor) -> Tensor:
    """The gradient of a loss at a weight, detached. The graph is kept."""
    (gradient,) = torch.autograd.grad(loss, layer, torch.ones_like(loss), retain_graph=True)
    return gradient.detach()


def gradient_penalty(images: Tensor, output: Tensor, weight: float = 10) -> Tensor:
    """``weight * E_b[(|d sum(output) / d images_b| - 1)^2]``, at images that require grad."""
    return penalty_from_logits(output, images, _UNIT_NORM, weight=weight)
