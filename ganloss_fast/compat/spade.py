"""SPADE (NVlabs/SPADE): ``models/networks/loss.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from ganloss_fast.checks import check_number
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
from ganloss_fast.compat.pix2pixhd import VGGLoss
from ganloss_fast.losses.table import Hinge, Wasserstein

__all__ = ["GANLoss", "VGGLoss"]


class GANLoss(ModeCriterion):
    """The criterion of SPADE (Park et al., 2019): the mean over discriminators, in one call.

    .. math:: ls: E[(D - t)^2] \\quad original: E[bce(D, t)] \\quad w: \\mp E[D] \\quad
        hinge: E[max(0, 1 \\mp D)], \\; L_G = -E[D]

    At the kink of the hinge, ``D = +-1`` exactly, the slope is 0; SPADE's ``torch.min`` gives 1/2.

    Args:
        gan_mode: ``"ls"``, ``"original"``, ``"w"`` or ``"hinge"``.
        target_real_label: label of real samples, and of fake ones in the generator's loss.
        target_fake_label: label of fake samples.
        tensor: not used.
        opt: kept as an attribute, not used.

    Raises:
        ValueError: for another mode.
    """

    MODES: ClassVar[dict[str, Mode]] = {
        "ls": least_squares,
        "original": cross_entropy,
        "w": Wasserstein(),
        "hinge": Hinge(),
    }

    def __init__(
        self,
        gan_mode: str,
        target_real_label: float = 1.0,
        target_fake_label: float = 0.0,
        tensor: Any = None,
        opt: Any = None,
    ) -> None:
        super().__init__()
        check_mode("gan_mode", gan_mode, list(self.MODES))
        self.gan_mode = gan_mode
        self.real_label = check_number("target_real_label", target_real_label)
        self.fake_label = check_number("target_fake_label", target_fake_label)
        self.opt = opt

    def labels(self) -> tuple[float, float]:
        return self.real_label, self.fake_label

    def get_target_tensor(self, input: Tensor, target_is_real: bool) -> Tensor:
        """The label, expanded to the shape of the logits."""
        label = self.real_label if target_is_real else self.fake_label
        return input.new_full((1,), label).expand_as(input)

    def get_zero_tensor(self, input: Tensor) -> Tensor:
        """0, expanded to the shape of the logits."""
        return input.new_zeros((1,)).expand_as(input)

    def forward(
        self,
        input: Tensor | Sequence[Any],
        target_is_real: bool,
        for_discriminator: bool = True,
    ) -> Tensor:
        """The loss of one side.

        Args:
            input: logits; or a list with an entry for each discriminator: its logits, or its list
                [maps..., logits], of which the last counts.
            target_is_real: which side.
            for_discriminator: False for the generator's loss, of which the hinge has a form of its
                own.

        Returns:
            0-d tensor; **[1] for a list**, as there. float32, or float64 if any logits are.

        Raises:
            ValueError: if the lists are nested otherwise, or a generator's hinge loss is asked to
                aim at the fake side.
        """
        if self.gan_mode == "hinge" and not for_discriminator and not target_is_real:
            raise ValueError(
                "target_is_real: a generator's hinge loss aims at the real side; pass True."
            )
        loss = self.loss_of(self.gan_mode)
        if isinstance(input, (list, tuple)):
            logits = last_of_each("input", input)
            mean = side_loss(
                logits, target_is_real, loss, for_discriminator, output_reduction="mean"
            )
            return mean.reshape(1)
        return side_loss(as_logits("input", input), target_is_real, loss, for_discriminator)

    __call__ = forward  # as there: without hooks
