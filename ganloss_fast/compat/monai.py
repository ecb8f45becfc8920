"""MONAI (Project-MONAI/MONAI): ``monai/losses/adversarial_loss.py``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ganloss_fast.checks import as_outputs, check_choice
from ganloss_fast.compat._criteria import check_mode
from ganloss_fast.losses.adversarial import discriminator_side_loss
from ganloss_fast.losses.table import LossLike


class _Criterion(NamedTuple):
    """A loss, what MONAI applies to the logits first, and the labels it speaks of."""

    loss: LossLike
    activation: Callable[[Tensor], Tensor] | None
    fake_label: float = 0.0


def _leaky_relu(logits: Tensor) -> Tensor:
    return torch.nn.functional.leaky_relu(logits, 0.05)


_CRITERIA = {
    "bce": _Criterion("bce", None),  # its sigmoid is within the loss
    "hinge": _Criterion("hinge", torch.tanh, -1.0),
    "least_squares": _Criterion("least_squares", _leaky_relu),
}


class PatchAdversarialLoss(torch.nn.Module):
    """The criterion of MONAI for patch discriminators, one or several.

    .. math:: bce: E[bce(D, t)] \\quad least\\_squares: E[(leaky\\_relu_{0.05}(D) - t)^2] \\quad
        hinge: E[max(0, 1 \\mp \\tanh D)]

    with ``t`` 1 or 0; the generator's hinge loss is that of the real side. Binary cross-entropy is
    of the logits: where MONAI's, of probabilities, ends at 100 and has no gradient, it goes on.
    At the kink of the hinge the slope is 0; MONAI's ``torch.min`` gives 1/2.

    Args:
        reduction: over the elements of an output *and* over outputs: ``"mean"``, ``"sum"`` or
            ``"none"`` for a list with an entry for each output. The hinge loss of an output is
            a mean whatever this says, as in MONAI.
        criterion: ``"bce"``, ``"hinge"`` or ``"least_squares"``.
        no_activation_leastsq: leave the leaky ReLU out.

    Raises:
        ValueError: for another criterion or reduction.
    """

    def __init__(
        self,
        reduction: str = "mean",
        criterion: str = "least_squares",
        no_activation_leastsq: bool = False,
    ) -> None:
        super().__init__()
        reduction = str(getattr(reduction, "value", reduction))  # MONAI has enums of these names
        criterion = str(getattr(criterion, "value", criterion)).lower()
        check_choice("reduction", reduction, ("mean", "sum", "none"))
        check_mode("criterion", criterion, list(_CRITERIA))
        self.reduction: Any = reduction
        self.criterion = criterion
        self._row = _CRITERIA[criterion]
        if criterion == "least_squares" and no_activation_leastsq:
            self._row = self._row._replace(activation=None)
        self.real_label = 1.0
        self.fake_label = self._row.fake_label

    def get_target_tensor(self, input: Tensor, target_is_real: bool) -> Tensor:
        """The label, expanded to the shape of the logits."""
        label = self.real_label if target_is_real else self.fake_label
        return input.new_full((), label).expand_as(input)

    def get_zero_tensor(self, input: Tensor) -> Tensor:
        """0, expanded to the shape of the logits."""
        return input.new_zeros(()).expand_as(input)

    def forward(
        self, input: Tensor | Sequence[Tensor], target_is_real: bool, for_discriminator: bool
    ) -> Tensor | list[Tensor]:
        """The loss of one side.

        Args:
            input: logits, without an activation: a tensor, or a list with one for each output.
            target_is_real: which side. A generator's is real: anything else is taken for that,
                with a warning.
            for_discriminator: whether this is the discriminator's loss.

        Returns:
            0-d tensor; for ``reduction="none"`` a list with the elements' losses of every output
            (for the hinge loss: its mean).
        """
        if not for_discriminator and not target_is_real:
            warnings.warn(
                "target_is_real: a generator's loss aims at the real side; True is taken.",
                stacklevel=3,
            )
            target_is_real = True
        logits = as_outputs("input", input)
        if self._row.activation is not None:
            logits = [self._row.activation(t) for t in logits]
        return self._reduced(logits, bool(target_is_real))

    def _reduced(self, logits: list[Tensor], is_real: bool) -> Tensor | list[Tensor]:
        loss = self._row.loss
        if self.criterion == "hinge":  # means, which "sum" then adds up
            if self.reduction == "none":
                return [discriminator_side_loss(t, is_real, loss) for t in logits]
            return discriminator_side_loss(logits, is_real, loss, output_reduction=self.reduction)
        if self.reduction == "mean":
            return discriminator_side_loss(logits, is_real, loss, output_reduction="mean")
        return discriminator_side_loss(logits, is_real, loss, reduction=self.reduction)
