"""latent-diffusion and generative-models (CompVis, Stability AI): ``modules/losses``.

The classes of ``contperceptual.py`` and ``vqperceptual.py``, taming's functions, and a hinge loss
with a weight for each sample. The networks stay the codebase's, as in
:class:`ganloss_fast.compat.taming.VQLPIPSWithDiscriminator`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ganloss_fast.checks import check_integer, check_tensor, describe
from ganloss_fast.compat import taming
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
    "LPIPSWithDiscriminator",
    "VQLPIPSWithDiscriminator",
    "adopt_weight",
    "calculate_adaptive_weight",
    "hinge_d_loss",
    "hinge_d_loss_with_exemplar_weights",
    "measure_perplexity",
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


def measure_perplexity(predicted_indices: Tensor, n_embed: int) -> tuple[Tensor, Tensor]:
    """``exp(-sum p log(p + 1e-10))`` of how often each code was used, and how many were."""
    counts = torch.bincount(predicted_indices.flatten(), minlength=n_embed)
    shares = counts / predicted_indices.numel()
    return (-(shares * (shares + 1e-10).log()).sum()).exp(), (shares > 0).sum()


class VQLPIPSWithDiscriminator(taming.VQLPIPSWithDiscriminator):
    """:class:`ganloss_fast.compat.taming.VQLPIPSWithDiscriminator` with a choice of the pixels'
    distance, and the use of the codebook for the log.

    Args:
        n_classes: number of codes, for the log.
        perceptual_loss: the perceptual network, where latent-diffusion takes a name for one of its
            own.
        pixel_loss: ``"l1"`` or ``"l2"``. For the others see there.

    Raises:
        ValueError, TypeError: as there, and for another ``pixel_loss``.
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
        n_classes: int | None = None,
        perceptual_loss: Network | None = None,
        pixel_loss: str = "l1",
        *,
        discriminator: Network | None = None,
        discriminator_gradients: bool = True,
    ) -> None:
        super().__init__(
            disc_start,
            codebook_weight,
            pixelloss_weight,
            disc_factor=disc_factor,
            disc_weight=disc_weight,
            perceptual_weight=perceptual_weight,
            disc_conditional=disc_conditional,
            disc_loss=disc_loss,
            perceptual_loss=perceptual_loss,
            discriminator=discriminator,
            discriminator_gradients=discriminator_gradients,
        )
        check_mode("pixel_loss", pixel_loss, list(PIXELS))
        self.pixels = PIXELS[pixel_loss]
        self.n_classes = n_classes

    def forward(
        self,
        codebook_loss: Tensor | None,
        inputs: Tensor,
        reconstructions: Tensor,
        optimizer_idx: int,
        global_step: int,
        last_layer: Tensor | None = None,
        cond: Tensor | None = None,
        split: str = "train",
        predicted_indices: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As there.

        Args:
            codebook_loss: None for 0.
            predicted_indices: of the codes, int64 of any shape: adds ``perplexity`` and
                ``cluster_usage`` to the generator's log.
        """
        check_optimizer_idx(optimizer_idx)
        if optimizer_idx == 1:
            return self.discriminator_step(inputs, reconstructions, cond, global_step, split)
        if codebook_loss is None:
            codebook_loss = inputs.new_zeros(1)
        maps = self.maps(inputs, reconstructions)
        nll_loss = self.distances(inputs, reconstructions, maps, self.pixels).total
        loss, log = self.generator_step(
            nll_loss, maps, codebook_loss, reconstructions, global_step, last_layer, cond, split
        )
        if predicted_indices is not None:
            count = check_integer("n_classes", self.n_classes)
            perplexity, usage = measure_perplexity(predicted_indices, count)
            log |= {f"{split}/perplexity": perplexity, f"{split}/cluster_usage": usage}
        return loss, log


class LPIPSWithDiscriminator(TokenizerLoss):
    """The loss of a KL autoencoder (Rombach et al., 2022), with a learned variance.

    .. math:: L_G = \\frac{1}{B} \\sum w \\, (\\frac{|x - \\hat x| + w_p P(x, \\hat x)}{e^v} + v) +
        \\frac{w_k}{B} \\sum KL - \\lambda \\, E[D(\\hat x)]

    Args:
        logvar_init: start value of the parameter ``logvar``, ``v``.
        kl_weight: weight of the posterior's KL divergence. For the others see
            :class:`ganloss_fast.compat.taming.VQLPIPSWithDiscriminator`.

    Raises:
        ValueError, TypeError: as there.
    """

    def __init__(
        self,
        disc_start: int,
        logvar_init: float = 0.0,
        kl_weight: float = 1.0,
        pixelloss_weight: float = 1.0,
        disc_num_layers: int = 3,
        disc_in_channels: int = 3,
        disc_factor: float = 1.0,
        disc_weight: float = 1.0,
        perceptual_weight: float = 1.0,
        use_actnorm: bool = False,
        disc_conditional: bool = False,
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
        self.kl_weight = kl_weight
        self.pixel_weight = pixelloss_weight
        self.logvar = torch.nn.Parameter(torch.ones(()) * logvar_init)

    def forward(
        self,
        inputs: Tensor,
        reconstructions: Tensor,
        posteriors: Any,
        optimizer_idx: int,
        global_step: int,
        last_layer: Tensor | None = None,
        cond: Tensor | None = None,
        split: str = "train",
        weights: Tensor | float | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """A loss, and 0-d tensors for the log.

        Args:
            inputs: images [B, C, H, W].
            reconstructions: what the model made of them.
            posteriors: ``posteriors.kl()`` gives the divergence [B].
            optimizer_idx: 0 for the generator's loss, 1 for the discriminator's.
            global_step: of the training.
            last_layer: the weight of the decoder's last layer.
            cond: what the discriminator gets besides.
            split: the first part of the names in the log.
            weights: of elements or samples, to multiply with the images' distances; the adaptive
                weight is that of the distances without them.
        """
        check_optimizer_idx(optimizer_idx)
        if optimizer_idx == 1:
            return self.discriminator_step(inputs, reconstructions, cond, global_step, split)
        maps = self.maps(inputs, reconstructions)
        rec_loss = self.distances(inputs, reconstructions, maps).total
        nll_loss = self._per_sample(inputs, rec_loss)
        kl = posteriors.kl()
        kl_loss = kl.sum() / kl.shape[0]
        g_loss = generator_loss(self.logits(reconstructions, cond), "hinge")
        if weights is None and self.disc_factor > 0.0:
            loss, d_weight = self.weighed_sum(
                nll_loss, g_loss, reconstructions, last_layer, global_step, [self.logvar]
            )
        else:
            d_weight = self.weight_of(nll_loss, g_loss, last_layer, self.disc_factor)
            loss = nll_loss
            if weights is not None:
                mask = torch.as_tensor(weights, dtype=inputs.dtype, device=inputs.device)
                mask = mask.expand(inputs.shape)
                weighed = self.distances(inputs, reconstructions, maps, mask=mask).total
                loss = self._per_sample(inputs, weighed, mask.mean())
            loss = loss + d_weight * self.factor(global_step) * g_loss
        loss = loss + self.kl_weight * kl_loss
        logged: dict[str, Any] = {
            "total_loss": loss,
            "logvar": self.logvar,
            "kl_loss": kl_loss,
            "nll_loss": nll_loss,
            "rec_loss": rec_loss,
            "d_weight": d_weight,
            "disc_factor": torch.tensor(self.factor(global_step)),
            "g_loss": g_loss,
        }
        return loss, {f"{split}/{name}": value.detach() for name, value in logged.items()}

    def _per_sample(self, inputs: Tensor, distance: Tensor, share: Tensor | float = 1.0) -> Tensor:
        """The negative log-likelihood of a sample: the sum over its elements, of a mean."""
        return inputs[0].numel() * (distance * torch.exp(-self.logvar) + share * self.logvar)
