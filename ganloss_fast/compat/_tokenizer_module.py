"""What the loss modules of image tokenizers share: two networks, an adaptive weight, two steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import Module

from ganloss_fast.balancing.carried_loss import carried_loss
from ganloss_fast.balancing.rules import AdaptiveWeight
from ganloss_fast.checks import check_tensor, describe
from ganloss_fast.compat import _tokenizer_functional as functional
from ganloss_fast.compat._criteria import check_mode
from ganloss_fast.losses.composite.composite_loss import CompositeLoss, composite_loss
from ganloss_fast.losses.composite.terms import L1, MSE
from ganloss_fast.losses.sides import mean_logits

Network = Callable[..., Tensor]

# The distances of pixels, under the names that the codebases give them.
PIXELS: dict[str, type[L1 | MSE]] = {"l1": L1, "l2": MSE}


def check_network(name: str, network: object, example: str) -> None:
    if not callable(network) or isinstance(network, type):
        raise TypeError(
            f"{name}: expected the network, a module such as {example}, got {describe(network)}."
        )


class TokenizerLoss(Module):
    """The generator's and the discriminator's loss of a tokenizer, one or the other a call.

    The perceptual network runs in the generator's step alone. The codebases run it in the
    discriminator's too, and do nothing with what it says.

    The generator's loss walks through both networks once, if the backward reaches nothing but the
    reconstruction and ``logvar``: where the trainer has frozen the discriminator meanwhile, as
    Lightning does, or with ``discriminator_gradients=False``. Else the adaptive weight needs walks
    of its own, as published.

    Args:
        perceptual_loss: ``(inputs, reconstructions) -> distances``, to be added to those of
            pixels: [B, 1, 1, 1] of LPIPS. Put into ``eval()`` mode here, once.
        discriminator: the network that is trained.
        discriminator_gradients: whether the generator's backward computes the discriminator's
            weight gradients, if they are required. Nobody uses them.
    """

    D_LOSSES: ClassVar[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
        "hinge": functional.hinge_d_loss,
        "vanilla": functional.vanilla_d_loss,
    }
    last_layer: Sequence[Tensor]

    def __init__(
        self,
        disc_start: int,
        disc_loss: str,
        disc_factor: float,
        disc_weight: float,
        perceptual_weight: float,
        disc_conditional: bool,
        perceptual_loss: Network | None,
        discriminator: Network | None,
        discriminator_gradients: bool = True,
    ) -> None:
        super().__init__()
        check_mode("disc_loss", disc_loss, list(self.D_LOSSES))
        if perceptual_loss is not None or perceptual_weight > 0:
            check_network("perceptual_loss", perceptual_loss, "your codebase's LPIPS()")
        check_network("discriminator", discriminator, "NLayerDiscriminator(...)")
        if isinstance(perceptual_loss, Module):
            perceptual_loss.eval()
        self.perceptual_loss: Any = perceptual_loss
        self.discriminator: Any = discriminator
        self.disc_loss = self.D_LOSSES[disc_loss]
        self.discriminator_iter_start = disc_start
        self.disc_factor = disc_factor
        self.discriminator_weight = disc_weight
        self.perceptual_weight = perceptual_weight
        self.disc_conditional = disc_conditional
        self.discriminator_gradients = discriminator_gradients

    # ---- the parts -----------------------------------------------------------------------------

    def maps(self, inputs: Tensor, reconstructions: Tensor) -> Tensor | None:
        """The perceptual distances, if they count."""
        if not self.perceptual_weight > 0:
            return None
        found: Tensor = self.perceptual_loss(inputs.contiguous(), reconstructions.contiguous())
        check_tensor("perceptual_loss", found)
        try:
            torch.broadcast_shapes(found.shape, inputs.shape)
        except RuntimeError as error:
            raise ValueError(
                "perceptual_loss: expected distances that can be added to those of pixels, "
                f"{list(inputs.shape)}, such as [B, 1, 1, 1], got {describe(found)}."
            ) from error
        return found

    def distances(
        self,
        inputs: Tensor,
        reconstructions: Tensor,
        maps: Tensor | None,
        pixels: type[L1 | MSE] = L1,
        weight: float = 1.0,
        mask: Tensor | None = None,
    ) -> CompositeLoss:
        """The weighed means over all elements of the distances, ``pixels`` and ``perceptual``: the
        codebases add them up as maps, and take the mean of that."""
        terms: dict[str, Any] = {
            "pixels": pixels(reconstructions, inputs, weight, mask=mask, detach_target=False)
        }
        if maps is not None:
            counted = maps if mask is None else mask * maps
            terms["perceptual"] = self.perceptual_weight * counted.mean()
        return composite_loss(**terms)

    def logits(self, images: Tensor, cond: Tensor | None) -> Tensor:
        """Of the discriminator, which judges images alone, or with what they were made from."""
        if self.disc_conditional == (cond is None):
            raise ValueError(
                f"cond: with disc_conditional={self.disc_conditional} the discriminator "
                f"{'needs' if self.disc_conditional else 'takes no'} cond, got {describe(cond)}."
            )
        images = images.contiguous()
        judged: Tensor = self.discriminator(
            images if cond is None else torch.cat((images, cond), dim=1)
        )
        return judged

    def calculate_adaptive_weight(
        self, nll_loss: Tensor, g_loss: Tensor, last_layer: Tensor | None = None
    ) -> Tensor:
        """:func:`ganloss_fast.compat.taming.calculate_adaptive_weight`."""
        return functional.calculate_adaptive_weight(
            nll_loss, g_loss, self._last(last_layer), self.discriminator_weight
        )

    def _last(self, last_layer: Tensor | None) -> Tensor:
        if last_layer is None and not hasattr(self, "last_layer"):
            raise ValueError(
                "last_layer: the adaptive weight needs the weight of the decoder's last layer, "
                "got None."
            )
        return self.last_layer[0] if last_layer is None else last_layer

    def weight_of(
        self, nll_loss: Tensor, g_loss: Tensor, last_layer: Tensor | None, disc_factor: float = 1.0
    ) -> Tensor:
        """The adaptive weight; 0 in a validation where gradients are off, and without a factor."""
        is_measurable = self.training or (nll_loss.requires_grad and g_loss.requires_grad)
        if not (is_measurable and disc_factor > 0.0):
            return nll_loss.new_zeros(())
        return self.calculate_adaptive_weight(nll_loss, g_loss, last_layer)

    def weighed_sum(
        self,
        nll_loss: Tensor,
        g_loss: Tensor,
        reconstructions: Tensor,
        last_layer: Tensor | None,
        global_step: int,
        loss_parameters: Sequence[Tensor] = (),
    ) -> tuple[Tensor, Tensor]:
        """``nll + d_weight * disc_factor * g``, and ``d_weight``."""
        factor = self.factor(global_step)
        carried = None
        if nll_loss.requires_grad and g_loss.requires_grad:
            carried = carried_loss(
                [nll_loss, g_loss],
                reconstructions,
                self._last(last_layer),
                [1.0, self.discriminator_weight * factor],
                loss_parameters,
                left_out=[] if self.discriminator_gradients else self._critic_parameters(),
            )
        if carried is None:
            weight = self.weight_of(nll_loss, g_loss, last_layer)
            return nll_loss + weight * factor * g_loss, weight
        loss, norms = carried
        _, weight = AdaptiveWeight().weigh(norms, [1.0, self.discriminator_weight]).unbind()
        return loss, weight

    def _critic_parameters(self) -> Sequence[Tensor]:
        is_module = isinstance(self.discriminator, Module)
        return list(self.discriminator.parameters()) if is_module else []

    # ---- the steps -----------------------------------------------------------------------------

    def discriminator_step(
        self,
        inputs: Tensor,
        reconstructions: Tensor,
        cond: Tensor | None,
        global_step: int,
        split: str,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The discriminator's loss, 0 before its start, and its log."""
        real, fake = self.both_logits(inputs, reconstructions, cond)
        disc_factor, loss = self.factor(global_step), self.disc_loss(real, fake)
        if disc_factor != 1.0:  # behind a factor the kernel would run once more for its gradient
            loss = disc_factor * loss
        return loss, {f"{split}/disc_loss": loss.detach(), **self.logged_logits(real, fake, split)}

    def factor(self, global_step: int) -> float:
        """``disc_factor``, from the discriminator's start on."""
        return functional.adopt_weight(
            self.disc_factor, global_step, threshold=self.discriminator_iter_start
        )

    def both_logits(
        self, inputs: Tensor, reconstructions: Tensor, cond: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return self.logits(inputs.detach(), cond), self.logits(reconstructions.detach(), cond)

    @staticmethod
    def logged_logits(real: Tensor, fake: Tensor, split: str) -> dict[str, Tensor]:
        means = mean_logits([real.detach(), fake.detach()]).unbind()
        return dict(zip((f"{split}/logits_real", f"{split}/logits_fake"), means))


def check_optimizer_idx(optimizer_idx: object) -> None:
    if isinstance(optimizer_idx, Tensor) or optimizer_idx not in (0, 1):
        raise ValueError(
            "optimizer_idx: expected 0, for the generator's loss, or 1, for the discriminator's, "
            f"got {describe(optimizer_idx)}."
        )
