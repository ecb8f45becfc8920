"""BasicSR, and with it Real-ESRGAN and GFPGAN (XPixelGroup/BasicSR): ``losses/gan_loss.py``, and of
``losses/basic_loss.py`` the perceptual loss.

ESRGAN's relativistic loss is written in its model, not in a criterion:
``BCE(relativistic="average", detach_means=True)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor

from ganloss_fast.checks import Weight, check_number, check_weight
from ganloss_fast.compat._criteria import (
    Mode,
    ModeCriterion,
    as_logits,
    check_mode,
    cross_entropy,
    least_squares,
    side_loss,
)
from ganloss_fast.compat._lists import last_of_each
from ganloss_fast.compat._penalties import path_length, penalty_between, squared_gradient_norm
from ganloss_fast.compat._perceptual import Extractor, LayeredLoss
from ganloss_fast.losses.table import BCE, Hinge, Loss, Wasserstein
from ganloss_fast.penalties.critic.call import Critic
from ganloss_fast.penalties.table import PENALTIES


class GANLoss(ModeCriterion):
    """The criterion of BasicSR.

    .. math:: vanilla: E[bce(D, t)] \\quad lsgan: E[(D - t)^2] \\quad wgan: \\mp E[D] \\quad
        wgan\\_softplus: E[\\log(1 + e^{\\mp D})] \\quad hinge: E[max(0, 1 \\mp D)], \\; L_G = -E[D]

    Args:
        gan_type: ``"vanilla"``, ``"lsgan"``, ``"wgan"``, ``"wgan_softplus"`` or ``"hinge"``.
        real_label_val: label of real samples, and of fake ones in the generator's loss.
        fake_label_val: label of fake samples.
        loss_weight: factor of the generator's loss; a discriminator's has none. A number or a 0-d
            tensor.

    Raises:
        ganloss_fast.compat.UnknownMode: for another type.
    """

    MODES: ClassVar[dict[str, Mode]] = {
        "vanilla": cross_entropy,
        "lsgan": least_squares,
        "wgan": Wasserstein(),
        "wgan_softplus": BCE(),
        "hinge": Hinge(),
    }

    def __init__(
        self,
        gan_type: str,
        real_label_val: float = 1.0,
        fake_label_val: float = 0.0,
        loss_weight: Weight = 1.0,
    ) -> None:
        super().__init__()
        check_mode("gan_type", gan_type, list(self.MODES))
        self.gan_type = gan_type
        self.loss_weight = check_weight("loss_weight", loss_weight)
        self.real_label_val = check_number("real_label_val", real_label_val)
        self.fake_label_val = check_number("fake_label_val", fake_label_val)

    def labels(self) -> tuple[float, float]:
        return self.real_label_val, self.fake_label_val

    def get_target_label(self, input: Tensor, target_is_real: bool) -> bool | Tensor:
        """The label in the shape of the logits; ``target_is_real`` where there are no labels."""
        if isinstance(self.MODES[self.gan_type], (Wasserstein, BCE)):
            return target_is_real
        label = self.real_label_val if target_is_real else self.fake_label_val
        return input.new_ones(input.size()) * label

    def forward(self, input: Tensor, target_is_real: bool, is_disc: bool = False) -> Tensor:
        """The loss of one side, times ``loss_weight`` unless ``is_disc``: one kernel for both.

        Returns:
            0-d tensor, float32, or float64 for float64 logits.
        """
        return self._side(as_logits("input", input), target_is_real, is_disc)

    def _side(
        self, logits: Tensor | list[Tensor], target_is_real: bool, is_disc: bool, **options: Any
    ) -> Tensor:
        loss: Loss = self.loss_of(self.gan_type)
        weight = 1.0 if is_disc else self.loss_weight
        return side_loss(logits, target_is_real, loss, bool(is_disc), weight, **options)


class MultiScaleGANLoss(GANLoss):
    """:class:`GANLoss` of several discriminators: the mean over them, in one call."""

    def forward(
        self, input: Tensor | Sequence[Any], target_is_real: bool, is_disc: bool = False
    ) -> Tensor:
        """The loss of one side, 0-d.

        Args:
            input: logits; or a list with an entry for each discriminator: its logits, or its list
                [maps..., logits], of which the last counts.
            target_is_real: which side.
            is_disc: as in :class:`GANLoss`.

        Raises:
            ValueError: if the lists are nested otherwise.
        """
        if isinstance(input, Tensor):
            return super().forward(input, target_is_real, is_disc)
        logits = last_of_each("input", input)
        return self._side(logits, target_is_real, is_disc, output_reduction="mean")


def r1_penalty(real_pred: Tensor, real_img: Tensor) -> Tensor:
    """R1 without a factor, ``mean_i sum g_i^2``, of logits that the step has already.

    Args:
        real_pred: logits, with their graph.
        real_img: what they were computed from, [B, ...], requiring grad before.

    Returns:
        0-d tensor. The trainer's factors (``r1_reg_weight / 2``, the interval) stay outside.
    """
    return squared_gradient_norm(real_pred, real_img)


def g_path_regularize(
    fake_img: Tensor, latents: Tensor, mean_path_length: float | Tensor, decay: float = 0.01
) -> tuple[Tensor, Tensor, Tensor]:
    """Path length regularisation without a weight (StyleGAN2; Karras et al., 2020).

    Args:
        fake_img: generated images [B, C, H, W], with their graph.
        latents: what they were made from, [B, layers, D], requiring grad.
        mean_path_length: moving average: a number, or the 0-d tensor of the last call.
        decay: share of this batch in the average.

    Returns:
        The penalty; the mean length of this batch, detached; the new moving average, detached.
        **This order is BasicSR's own.**
    """
    result = path_length(fake_img, latents, mean_path_length, decay)
    return result.penalty, result.lengths.mean(), result.mean


def gradient_penalty_loss(
    discriminator: Critic, real_data: Tensor, fake_data: Tensor, weight: Tensor | None = None
) -> Tensor:
    """The gradient penalty of BasicSR: a norm over the channels of every *pixel*.

    .. math:: E_{i, p}[(\\|g_{i, :, p}\\|_2 - 1)^2]

    with alpha [B, 1, 1, 1] drawn on the CPU. No gradient reaches the samples.

    Args:
        discriminator: the critic.
        real_data: real samples [B, C, H, W].
        fake_data: generated samples, alike in shape.
        weight: a mask over the gradients; the result is divided by its mean.

    Returns:
        0-d tensor, without a weight of its own.
    """
    penalty = replace(PENALTIES["mmagic"].penalty, normalize_by_mask=weight is not None)
    return penalty_between(discriminator, real_data, fake_data, penalty, mask=weight)


class PerceptualLoss(LayeredLoss):
    """The perceptual and the style loss of BasicSR, over a network of yours.

    .. math:: w_p \\sum_l w_l \\, E|\\phi_l(x) - \\phi_l(y)|, \\qquad
        w_s \\sum_l w_l \\, E|G_l(x) - G_l(y)|, \\quad G = \\frac{F F^T}{c h w}

    Args:
        layer_weights: ``w_l`` by the names of layers.
        vgg_type: not used: the network is made already.
        use_input_norm: normalise images in [0, 1] as the networks of torchvision want it, before
            the network; BasicSR's own extractor does so itself, so there it is False here.
        range_norm: images are in [-1, 1]: to [0, 1] before that.
        perceptual_weight: ``w_p``; not above 0 leaves that loss out.
        style_weight: ``w_s``; not above 0 leaves that loss out.
        criterion: ``"l1"``, ``"l2"`` for squares, or ``"fro"`` for the norm of a difference.
        network: images to a dict of feature maps by layer, such as
            :class:`ganloss_fast.SequentialFeatures`. Its parameters are frozen.

    Raises:
        ganloss_fast.compat.UnknownMode: for another criterion.
        TypeError: if the network is missing.
    """

    CRITERIA: ClassVar[dict[str, str | None]] = {"l1": "l1", "l2": "mse", "fro": None}

    def __init__(
        self,
        layer_weights: Mapping[str, float],
        vgg_type: str = "vgg19",
        use_input_norm: bool = True,
        range_norm: bool = False,
        perceptual_weight: float = 1.0,
        style_weight: float = 0.0,
        criterion: str = "l1",
        *,
        network: Extractor | None = None,
    ) -> None:
        super().__init__(
            layer_weights,
            layer_weights,
            use_input_norm,
            range_norm,
            perceptual_weight,
            style_weight,
            criterion,
            network,
        )
