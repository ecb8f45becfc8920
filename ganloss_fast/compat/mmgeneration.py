"""mmgeneration (open-mmlab/mmgeneration): ``mmgen.models.losses``.

mmagic's losses with data, under the names that they had before, weighed and reduced as there:
``weight``, ``reduction`` and ``avg_factor`` are arguments of the losses.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ganloss_fast.checks import Weight, check_choice
from ganloss_fast.compat.mmagic import gan_loss, loss_comps
from ganloss_fast.compat.mmagic.gan_loss import gen_path_regularizer
from ganloss_fast.compat.mmagic.loss_comps import GANLossComps as GANLoss
from ganloss_fast.losses.adversarial import discriminator_side_loss

__all__ = [
    "DiscShiftLoss",
    "GANLoss",
    "GeneratorPathRegularizer",
    "GradientPenaltyLoss",
    "R1GradientPenalty",
    "disc_shift_loss",
    "gen_path_regularizer",
    "gradient_penalty_loss",
    "r1_gradient_penalty_loss",
]

_REDUCTIONS = ("mean", "sum", "none")


def _check_reduction(reduction: str, avg_factor: object) -> None:
    check_choice("reduction", reduction, _REDUCTIONS)
    if avg_factor is not None and reduction == "sum":
        raise ValueError("avg_factor: it is what a sum is divided by to a mean; leave it out.")


def disc_shift_loss(
    pred: Tensor,
    weight: Tensor | float | None = None,
    reduction: str = "mean",
    avg_factor: float | None = None,
) -> Tensor:
    """``weight * pred^2``, reduced.

    Args:
        pred: logits.
        weight: a number, or a tensor to multiply the squares with.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        avg_factor: what the sum is divided by, in place of the number of elements.

    Raises:
        ValueError: for another reduction, and for ``avg_factor`` with ``"sum"``.
    """
    _check_reduction(reduction, avg_factor)
    if reduction == "mean" and avg_factor is None and not isinstance(weight, Tensor):
        factor = 1.0 if weight is None else weight
        return discriminator_side_loss(pred, False, "least_squares", weight=factor)
    squares = gan_loss.disc_shift_loss(pred)
    if weight is not None:
        squares = squares * weight
    if reduction == "none":
        return squares
    if avg_factor is not None:
        return squares.sum() / avg_factor
    return squares.mean() if reduction == "mean" else squares.sum()


def _reduced(
    penalty: Tensor, weight: Weight | None, reduction: str, avg_factor: float | None
) -> Tensor:
    """A penalty is one number, whatever the reduction."""
    _check_reduction(reduction, avg_factor)
    if weight is not None:
        penalty = penalty * weight
    if avg_factor is None or reduction == "none":
        return penalty
    return penalty / avg_factor


def gradient_penalty_loss(
    *args: Any,
    weight: Weight | None = None,
    reduction: str = "mean",
    avg_factor: float | None = None,
    **kwargs: Any,
) -> Tensor:
    """:func:`ganloss_fast.compat.mmagic.gradient_penalty_loss`, times ``weight`` and divided by
    ``avg_factor``."""
    penalty = gan_loss.gradient_penalty_loss(*args, **kwargs)
    return _reduced(penalty, weight, reduction, avg_factor)


def r1_gradient_penalty_loss(
    *args: Any,
    weight: Weight | None = None,
    reduction: str = "mean",
    avg_factor: float | None = None,
    **kwargs: Any,
) -> Tensor:
    """:func:`ganloss_fast.compat.mmagic.r1_gradient_penalty_loss`, times ``weight`` and divided by
    ``avg_factor``."""
    penalty = gan_loss.r1_gradient_penalty_loss(*args, **kwargs)
    return _reduced(penalty, weight, reduction, avg_factor)


class DiscShiftLoss(loss_comps.DiscShiftLossComps):
    """``loss_weight`` times :func:`disc_shift_loss`, with its ``reduction`` and ``avg_factor``."""

    def loss(self, pred: Tensor, **options: Any) -> Tensor:
        return disc_shift_loss(pred, weight=self.loss_weight, **options)


class GradientPenaltyLoss(loss_comps.GradientPenaltyLossComps):
    """``loss_weight`` times :func:`gradient_penalty_loss`, with its ``reduction`` and
    ``avg_factor``."""

    def loss(self, *args: Any, **kwargs: Any) -> Tensor:
        return gradient_penalty_loss(*args, weight=self.loss_weight, **kwargs)


class R1GradientPenalty(loss_comps.R1GradientPenaltyComps):
    """``loss_weight`` times :func:`r1_gradient_penalty_loss`, with its ``reduction`` and
    ``avg_factor``, every ``interval`` iterations; None in between."""

    def loss(self, *args: Any, **kwargs: Any) -> Tensor:
        return r1_gradient_penalty_loss(*args, weight=self.loss_weight, **kwargs)


class GeneratorPathRegularizer(loss_comps.GeneratorPathRegularizerComps):
    """As :class:`ganloss_fast.compat.mmagic.GeneratorPathRegularizerComps`; without ``data_info``
    it returns all three values of ``gen_path_regularizer``."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.data_info is None:
            return gen_path_regularizer(*args, **{"weight": self.loss_weight, **kwargs})
        return super().forward(*args, **kwargs)
