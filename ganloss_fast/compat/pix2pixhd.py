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
from ganloss_fast.compat._lists import last_of_each


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
            TypeError: for a tensor, of which pix2pixHD itself would take the last sample alone.
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
    if outputs and not isinstance(outputs[0], (list, tuple)):
        outputs = [outputs]
    return last_of_each("input", outputs)
