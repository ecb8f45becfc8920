"""LlamaGen (FoundationVision/LlamaGen): ``tokenizer/tokenizer_image/vq_loss.py``.

The published "non-saturating" losses have their arguments the wrong way round: the logits stand
where the targets belong. The discriminator's is then linear in the real logits and constant in
the fake ones, from which it learns nothing. Here they are what their name says, unless a call
says ``reversed_as_published=True``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from ganloss_fast.compat._criteria import check_mode
from ganloss_fast.compat._tokenizer_module import (
    PIXELS,
    Network,
    TokenizerLoss,
    check_optimizer_idx,
)
from ganloss_fast.compat.taming import (
    adopt_weight,
    calculate_adaptive_weight,
    hinge_d_loss,
    vanilla_d_loss,
)
from ganloss_fast.losses.adversarial import discriminator_loss, generator_loss

__all__ = [
    "VQLoss",
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


class VQLoss(TokenizerLoss):
    """The loss of LlamaGen's tokenizer (Sun et al., 2024), for the generator or the discriminator.

    .. math:: L_G = w_r \\, E[d(x, \\hat x)] + w_p \\, E[P(x, \\hat x)] + \\lambda w_d \\, L_{adv} +
        \\sum_{j < 3} codebook_j

    where the adaptive ``lambda`` is 1 unless asked for. The networks stay the codebase's, as in
    :class:`ganloss_fast.compat.taming.VQLPIPSWithDiscriminator`.

    Args:
        disc_start: the step from which on the discriminator counts.
        disc_loss: ``"hinge"``, ``"vanilla"`` or ``"non-saturating"``.
        disc_dim: not used: the discriminator is made already. So are ``disc_type``,
            ``image_size``, ``disc_num_layers`` and ``disc_in_channels``.
        disc_weight: factor of both adversarial losses.
        disc_adaptive_weight: whether the generator's is weighed by the norms of gradients.
        gen_adv_loss: ``"hinge"`` or ``"non-saturating"``.
        reconstruction_loss: ``"l1"`` or ``"l2"``.
        reconstruction_weight: its weight.
        codebook_weight: kept as an attribute, not used, as there.
        perceptual_weight: weight of the perceptual distance; 0 leaves it out.
        perceptual_loss: the perceptual network; for it and the others see there.
        reversed_as_published: of both non-saturating losses.

    Raises:
        ValueError: for another name of a loss, or another ``optimizer_idx``.
        TypeError: if a network is missing.
    """

    D_LOSSES: ClassVar[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
        **TokenizerLoss.D_LOSSES,
        "non-saturating": non_saturating_d_loss,
    }

    def __init__(
        self,
        disc_start: int,
        disc_loss: str = "hinge",
        disc_dim: int = 64,
        disc_type: str = "patchgan",
        image_size: int = 256,
        disc_num_layers: int = 3,
        disc_in_channels: int = 3,
        disc_weight: float = 1.0,
        disc_adaptive_weight: bool = False,
        gen_adv_loss: str = "hinge",
        reconstruction_loss: str = "l2",
        reconstruction_weight: float = 1.0,
        codebook_weight: float = 1.0,
        perceptual_weight: float = 1.0,
        *,
        perceptual_loss: Network | None = None,
        discriminator: Network | None = None,
        discriminator_gradients: bool = True,
        reversed_as_published: bool = False,
    ) -> None:
        super().__init__(
            disc_start,
            disc_loss,
            disc_factor=disc_weight,
            disc_weight=1.0,
            perceptual_weight=perceptual_weight,
            disc_conditional=False,
            perceptual_loss=perceptual_loss,
            discriminator=discriminator,
            discriminator_gradients=discriminator_gradients,
        )
        check_mode("gen_adv_loss", gen_adv_loss, ("hinge", "non-saturating"))
        check_mode("reconstruction_loss", reconstruction_loss, list(PIXELS))
        self.gen_adv_loss: Callable[[Tensor], Tensor] = hinge_gen_loss
        if gen_adv_loss == "non-saturating":
            self.gen_adv_loss = partial(
                non_saturating_gen_loss, reversed_as_published=reversed_as_published
            )
        if disc_loss == "non-saturating":
            self.disc_loss = partial(
                non_saturating_d_loss, reversed_as_published=reversed_as_published
            )
        self.disc_weight = disc_weight
        self.disc_adaptive_weight = disc_adaptive_weight
        self.rec_loss = PIXELS[reconstruction_loss]
        self.rec_weight = reconstruction_weight
        self.codebook_weight = codebook_weight

    def forward(
        self,
        codebook_loss: Sequence[Any],
        inputs: Tensor,
        reconstructions: Tensor,
        optimizer_idx: int,
        global_step: int,
        last_layer: Tensor | None = None,
        logger: Any = None,
        log_every: int = 100,
    ) -> Tensor:
        """A loss, 0-d.

        Args:
            codebook_loss: those of the codes, of the commitment and of the entropy, which count,
                and the use of the codebook.
            inputs: images [B, C, H, W].
            reconstructions: what the model made of them.
            optimizer_idx: 0 for the generator's loss, 1 for the discriminator's.
            global_step: of the training.
            last_layer: the weight of the decoder's last layer, for the adaptive weight.
            logger: ``logger.info`` gets a line every ``log_every`` steps, by one transfer from the
                device; None: nothing is logged.
            log_every: see there.
        """
        check_optimizer_idx(optimizer_idx)
        is_logged = logger is not None and global_step % log_every == 0
        if optimizer_idx == 1:
            loss, log = self.discriminator_step(inputs, reconstructions, None, global_step, "")
            if is_logged:
                _report(
                    logger,
                    "Discriminator",
                    discriminator_adv_loss=loss,
                    disc_weight=self.factor(global_step),
                    logits_real=log["/logits_real"],
                    logits_fake=log["/logits_fake"],
                )
            return loss
        distances = self.distances(
            inputs,
            reconstructions,
            self.maps(inputs, reconstructions),
            self.rec_loss,
            self.rec_weight,
        )
        g_loss = self.gen_adv_loss(self.logits(reconstructions, None))
        weight: Tensor | float = 1.0
        if self.disc_adaptive_weight:
            loss, weight = self.weighed_sum(
                distances.total, g_loss, reconstructions, last_layer, global_step
            )
        else:
            loss = distances.total + self.factor(global_step) * g_loss
        codes, commitment, entropy, *usage = codebook_loss
        if is_logged:
            _report(
                logger,
                "Generator",
                rec_loss=distances.parts["pixels"],
                perceptual_loss=distances.parts.get("perceptual", 0.0),
                vq_loss=codes,
                commit_loss=commitment,
                entropy_loss=entropy,
                codebook_usage=usage[0],
                generator_adv_loss=weight * self.factor(global_step) * g_loss,
                disc_adaptive_weight=weight,
                disc_weight=self.factor(global_step),
            )
        total: Tensor = loss + codes + commitment + entropy
        return total


def _report(logger: Any, side: str, **values: Tensor | float) -> None:
    like = next(value for value in values.values() if isinstance(value, Tensor)).detach()
    scalars = [torch.as_tensor(v, dtype=like.dtype, device=like.device) for v in values.values()]
    numbers = torch.stack([scalar.detach() for scalar in scalars]).tolist()
    parts = (f"{name}: {number:.4f}" for name, number in zip(values, numbers))
    logger.info(f"({side}) {', '.join(parts)}")
