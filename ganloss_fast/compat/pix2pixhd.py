"""pix2pixHD (NVIDIA/pix2pixHD): ``models/networks.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ganloss_fast.checks import check_number, describe
from ganloss_fast.compat._criteria import (
    Mode,
    ModeCriterion,
    least_squares,
    probability_loss,
    side_loss,
)
from ganloss_fast.compat._lists import last_of_lists
from ganloss_fast.compat._perceptual import Extractor, check_extractor
from ganloss_fast.losses.composite.composite_loss import composite_loss
from ganloss_fast.losses.composite.terms import Perceptual

__all__ = ["GANLoss", "VGGLoss"]


class GANLoss(ModeCriterion):
    """The criterion of pix2pixHD (Wang et al., 2018): the sum over discriminators.

    .. math:: \\sum_k E[(D_k - t)^2]

    in one call for all of them; the factor 1/2 is the trainer's.

    Args:
        use_lsgan: False is binary cross-entropy of the *probabilities* of discriminators that end
            in a sigmoid.
        target_real_label: label of real samples, and of fake ones in the generator's loss.
        target_fake_label: label of fake samples.
        tensor: not used.
    """

    MODES: ClassVar[dict[str, Mode]] = {"lsgan": least_squares}

    def __init__(
        self,
        use_lsgan: bool = True,
        target_real_label: float = 1.0,
        target_fake_label: float = 0.0,
        tensor: Any = None,
    ) -> None:
        super().__init__()
        self.use_lsgan = bool(use_lsgan)
        self.real_label = check_number("target_real_label", target_real_label)
        self.fake_label = check_number("target_fake_label", target_fake_label)

    def labels(self) -> tuple[float, float]:
        return self.real_label, self.fake_label

    def get_target_tensor(self, input: Tensor, target_is_real: bool) -> Tensor:
        """The label, in the shape of the logits."""
        return torch.full_like(input, self.real_label if target_is_real else self.fake_label)

    def forward(
        self, input: Sequence[Tensor] | Sequence[Sequence[Tensor]], target_is_real: bool
    ) -> Tensor:
        """The loss of one side.

        Args:
            input: for every discriminator its list [maps..., logits], of which the last counts.
                Of a flat list of tensors, which is one discriminator's, the last counts too.
            target_is_real: which label.

        Returns:
            0-d tensor, float32, or float64 if any logits are.

        Raises:
            TypeError: for a tensor in place of a list, of which pix2pixHD itself would take the
                last sample alone.
            ValueError: if the lists are nested otherwise.
        """
        logits = _logits(input)
        if not self.use_lsgan:
            return probability_loss(logits, self.labels()[0 if target_is_real else 1])
        return side_loss(logits, target_is_real, self.loss_of("lsgan"))

    __call__ = forward  # as there: without hooks


def _logits(outputs: Any) -> list[Tensor]:
    if not isinstance(outputs, (list, tuple)):
        raise TypeError(
            f"input: expected the discriminators' lists of outputs, got {describe(outputs)}. Pass "
            "[[logits]] for the logits of one discriminator."
        )
    if not any(isinstance(output, (list, tuple)) for output in outputs):
        outputs = [outputs] if outputs else []
    return last_of_lists("input", outputs)


class VGGLoss(torch.nn.Module):
    """The perceptual loss of pix2pixHD and SPADE, in one call for all maps.

    .. math:: \\sum_l w_l \\, E|\\phi_l(x) - \\phi_l(y)|, \\quad
        w = \\tfrac{1}{32}, \\tfrac{1}{16}, \\tfrac{1}{8}, \\tfrac{1}{4}, 1

    Args:
        gpu_ids: not used: the network is where you put it.
        network: images to a list of at most five feature maps: the codebase's ``Vgg19()``. Its
            parameters stay as they are.

    Raises:
        TypeError: if the network is missing.
        ValueError: when called, if the network gives more maps than there are weights.
    """

    weights = (1.0 / 32, 1.0 / 16, 1.0 / 8, 1.0 / 4, 1.0)

    def __init__(self, gpu_ids: Any = None, *, network: Extractor | None = None) -> None:
        super().__init__()
        check_extractor(network)
        self.vgg: Any = network

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss of ``x``, 0-d; no gradient flows to ``y``."""
        of_x = self.vgg(x)
        with torch.no_grad():
            of_y = self.vgg(y)
        if len(of_x) > len(self.weights):
            raise ValueError(
                f"network: expected {len(self.weights)} feature maps at most, got {len(of_x)}."
            )
        weights = self.weights[: len(of_x)]
        return composite_loss(maps=Perceptual(of_x, of_y, layer_weights=weights)).total
