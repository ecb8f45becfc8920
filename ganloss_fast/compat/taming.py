"""taming-transformers (CompVis/taming-transformers): ``modules/losses/vqperceptual.py``.

:class:`VQLPIPSWithDiscriminator` and the functions that it is made of. The networks stay the
codebase's: the class takes them as arguments, where taming's makes them itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ganloss_fast.compat._tokenizer_functional import (
    adopt_weight,
    calculate_adaptive_weight,
    hinge_d_loss,
    vanilla_d_loss,
)
from ganloss_fast.compat._tokenizer_module import Network, TokenizerLoss, check_optimizer_idx
from ganloss_fast.losses.adversarial import generator_loss

__all__ = [
    "VQLPIPSWithDiscriminator",
    "adopt_weight",
    "calculate_adaptive_weight",
    "hinge_d_loss",
    "vanilla_d_loss",
]


class VQLPIPSWithDiscriminator(TokenizerLoss):
    """The loss of VQGAN (Esser et al., 2021), for the generator or for the discriminator.

    .. math:: L_G = E|x - \\hat x| + w_p \\, E[P(x, \\hat x)] - \\lambda \\, E[D(\\hat x)]
        + w_c \\, E[codebook]

    with the adaptive weight of :func:`calculate_adaptive_weight`. In place of taming's::

        loss = VQLPIPSWithDiscriminator(
            disc_start=10000, disc_weight=0.8,
            perceptual_loss=LPIPS(),
            discriminator=NLayerDiscriminator(3, n_layers=3, ndf=64).apply(weights_init),
        )

    The perceptual network runs in the generator's step alone; taming runs it in the
    discriminator's too and does nothing with what it says. The generator's loss walks through both
    networks once where nothing but the reconstruction gets a gradient from it: where the trainer
    has frozen the discriminator meanwhile, as Lightning does, or with
    ``discriminator_gradients=False``. Such a loss has no second derivative. Else, and in float16,
    the adaptive weight takes walks of its own, as published.

    Args:
        disc_start: the step from which on the discriminator counts.
        codebook_weight: weight of the codebook's loss.
        pixelloss_weight: kept as an attribute, not used, as there.
        disc_num_layers: not used: the discriminator is made already. So are ``disc_in_channels``,
            ``use_actnorm`` and ``disc_ndf``.
        disc_factor: factor of both adversarial losses.
        disc_weight: factor of the adaptive weight.
        perceptual_weight: weight of the perceptual distance; 0 leaves it out.
        disc_conditional: whether the discriminator gets ``cond`` too, as channels.
        disc_loss: ``"hinge"`` or ``"vanilla"``, of the discriminator.
        perceptual_loss: the perceptual network, ``(inputs, reconstructions) -> distances`` that
            can be added to those of pixels, as LPIPS gives them: [B, 1, 1, 1]. A module is put
            into ``eval()`` mode once.
        discriminator: the discriminator, images to logits.
        discriminator_gradients: whether the generator's backward computes the discriminator's
            weight gradients, if they are required; its next ``zero_grad`` throws them away.

    Raises:
        ValueError: for another ``disc_loss``; when called, for another ``optimizer_idx``, and for
            a ``cond`` that does not fit ``disc_conditional``.
        TypeError: if a network is missing.
    """

    def __init__(
        self,
        disc_start: int,
        codebook_weight: float = 1.0,
        pixelloss_weight: float = 1.0,
        disc_num_layers: int = 3,
        disc_in_channels: int = 3,
        disc_factor: float = 1.0,
        disc_weight: float = 1.0,
        perceptual_weight: float = 1.0,
        use_actnorm: bool = False,
        disc_conditional: bool = False,
        disc_ndf: int = 64,
        disc_loss: str = "hinge",
        *,
        perceptual_loss: Network | None = None,
        discriminator: Network | None = None,
        discriminator_gradients: bool = True,
    ) -> None:
        super().__init__(
            disc_start,
            disc_loss,
            disc_factor,
            disc_weight,
            perceptual_weight,
            disc_conditional,
            perceptual_loss,
            discriminator,
            discriminator_gradients,
        )
        self.codebook_weight = codebook_weight
        self.pixel_weight = pixelloss_weight

    def forward(
        self,
        codebook_loss: Tensor,
        inputs: Tensor,
        reconstructions: Tensor,
        optimizer_idx: int,
        global_step: int,
        last_layer: Tensor | None = None,
        cond: Tensor | None = None,
        split: str = "train",
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """A loss, and 0-d tensors for the log under taming's names.

        Args:
            codebook_loss: tensor of any shape, of which the mean counts.
            inputs: images [B, C, H, W].
            reconstructions: what the model made of them.
            optimizer_idx: 0 for the generator's loss, 1 for the discriminator's.
            global_step: of the training.
            last_layer: the weight of the decoder's last layer.
            cond: what the discriminator gets besides.
            split: the first part of the names in the log.
        """
        check_optimizer_idx(optimizer_idx)
        if optimizer_idx == 1:
            return self.discriminator_step(inputs, reconstructions, cond, global_step, split)
        maps = self.maps(inputs, reconstructions)
        nll_loss = self.distances(inputs, reconstructions, maps).total
        return self.generator_step(
            nll_loss, maps, codebook_loss, reconstructions, global_step, last_layer, cond, split
        )

    def generator_step(
        self,
        nll_loss: Tensor,
        maps: Tensor | None,
        codebook_loss: Tensor,
        reconstructions: Tensor,
        global_step: int,
        last_layer: Tensor | None,
        cond: Tensor | None,
        split: str,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The generator's loss of distances that were computed already, and its log."""
        g_loss = generator_loss(self.logits(reconstructions, cond), "hinge")
        loss, d_weight = self.weighed_sum(
            nll_loss, g_loss, reconstructions, last_layer, global_step
        )
        of_codebook = codebook_loss.mean()
        loss = loss + self.codebook_weight * of_codebook
        logged: dict[str, Any] = {
            "total_loss": loss,
            "quant_loss": of_codebook,
            "nll_loss": nll_loss,
            "rec_loss": nll_loss,
            "p_loss": nll_loss.new_zeros(()) if maps is None else maps.detach().mean(),
            "d_weight": d_weight,
            "disc_factor": torch.tensor(self.factor(global_step)),
            "g_loss": g_loss,
        }
        return loss, {f"{split}/{name}": value.detach() for name, value in logged.items()}
