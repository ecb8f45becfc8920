"""What the criteria of image codebases share: modes by name, labels, one side a call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ganloss_fast.checks import Weight, check_tensor, describe, quoted, suggestion
from ganloss_fast.losses.adversarial import discriminator_side_loss, generator_loss
from ganloss_fast.losses.details import Reduction
from ganloss_fast.losses.table import BCE, Hinge, Label, LeastSquares, Loss, LossLike

# ---- modes -------------------------------------------------------------------------------------

Mode = Loss | Callable[[Label, Label], Loss]
"""A loss without labels, or from the labels of real and of fake logits to one."""


def least_squares(real_label: Label, fake_label: Label) -> Loss:
    return LeastSquares(real_label=real_label, fake_label=fake_label)


def cross_entropy(real_label: Label, fake_label: Label) -> Loss:
    return BCE(real_label=real_label, fake_label=fake_label)


class UnknownMode(NotImplementedError, ValueError):
    """A name that is none of those which a criterion knows. It is caught by either of its bases:
    CycleGAN's family raises the one there and SPADE's the other, and scripts catch what their
    codebase raises."""


def check_mode(name: str, mode: object, modes: Sequence[str]) -> None:
    if not isinstance(mode, str) or mode not in modes:
        near = suggestion(mode, modes) if isinstance(mode, str) else ""
        raise UnknownMode(f"{name}: expected one of {', '.join(modes)}, got {quoted(mode)}.{near}")


class ModeCriterion(torch.nn.Module, ABC):
    """A criterion that is told by name which loss it is, and has a label for either side."""

    MODES: ClassVar[Mapping[str, Mode]]

    def __init__(self) -> None:
        super().__init__()
        self._made_of: tuple[Any, ...] = ()

    @abstractmethod
    def labels(self) -> tuple[Label, Label]:
        """The labels of real and of fake logits as they are now; numbers, unless compiling."""

    def loss_of(self, name: str) -> Loss:
        """The loss of a mode, made again where somebody changed a label since the last call."""
        mode = self.MODES[name]
        if not callable(mode):
            return mode
        labels = self.labels()
        if torch.compiler.is_compiling():
            return mode(*labels)
        if self._made_of != (name, labels):
            self._loss, self._made_of = mode(*labels), (name, labels)
        return self._loss


# ---- one side a call ---------------------------------------------------------------------------


def side_loss(
    logits: Tensor | Sequence[Tensor],
    target_is_real: object,
    loss: LossLike,
    is_discriminator: bool = True,
    weight: Weight = 1.0,
    output_reduction: Reduction = "sum",
) -> Tensor:
    """The loss of one side. A generator asks for the real label, but for the hinge loss, which has
    a form of its own there."""
    if is_discriminator or not isinstance(loss, Hinge):
        return discriminator_side_loss(
            logits, bool(target_is_real), loss, weight=weight, output_reduction=output_reduction
        )
    return generator_loss(logits, loss, weight=weight, output_reduction=output_reduction)


def probability_loss(outputs: Sequence[Tensor], label: Label) -> Tensor:
    """Binary cross-entropy of probabilities, summed over outputs, each in its own dtype.

    For discriminators that end in a sigmoid. Plain PyTorch: without logits there is nothing that
    the kernels could keep exact.
    """
    losses = [
        torch.nn.functional.binary_cross_entropy(output, torch.ones_like(output) * label)
        for output in outputs
    ]
    return losses[0] if len(losses) == 1 else torch.stack(losses).sum()


# ---- outputs -----------------------------------------------------------------------------------


def as_logits(name: str, output: object) -> Tensor:
    """The logits of a criterion that takes one tensor."""
    if isinstance(output, (list, tuple)):
        raise TypeError(
            f"{name}: expected the logits of one discriminator, a tensor, got {describe(output)}."
        )
    return check_tensor(name, output)
