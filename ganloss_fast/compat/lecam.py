"""Drop-in for google/lecam-gan: ``biggan_cifar/losses.py`` and ``ema_losses`` of its utils.

Names, arguments, order and values are its own: fake comes before real, and the least-squares loss
wants -1 of real logits and 1 of fake ones. The averages stay on the device as 0-d tensors, where
lecam-gan waits for it twice a step; ``float(ema.D_real)`` reads one. No gradient flows to them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ganloss_fast import ops
from ganloss_fast.checks import check_choice, check_tensor
from ganloss_fast.compat._toolkits import plainly_reduced
from ganloss_fast.losses import adversarial
from ganloss_fast.losses.lecam import lecam_regularization
from ganloss_fast.losses.sides import mean_logits
from ganloss_fast.losses.table import BCE, Hinge, LeastSquares, Loss
from ganloss_fast.ops import terms
from ganloss_fast.ops.terms import Segment

__all__ = [
    "discriminator_loss",
    "ema_losses",
    "generator_loss",
    "lecam_reg",
    "loss_dcgan_dis",
    "loss_dcgan_gen",
    "loss_hinge_dis",
    "loss_hinge_gen",
    "loss_ls_dis",
    "loss_ls_gen",
    "loss_rahinge_dis",
    "loss_rahinge_gen",
]

_TRACKED = ("G_loss", "D_loss_real", "D_loss_fake", "D_real", "D_fake")


class ema_losses:  # their name
    """Moving averages by name: ``D_real`` and ``D_fake`` are the anchors of :func:`lecam_reg`.

    Args:
        init: start value of all of them.
        decay: of the averages.
        start_itr: before this iteration an average is the last value.
    """

    D_real: float | Tensor
    D_fake: float | Tensor

    def __init__(self, init: float = 1000.0, decay: float = 0.9, start_itr: int = 0) -> None:
        for name in _TRACKED:
            setattr(self, name, init)
        self.decay = decay
        self.start_itr = start_itr

    def update(self, cur: float | Tensor, mode: str, itr: int) -> None:
        """Moves the average ``mode`` by a value: a number, or a 0-d tensor, which stays one."""
        check_choice("mode", mode, _TRACKED)
        decay = 0.0 if itr < self.start_itr else self.decay
        current = cur.detach() if isinstance(cur, Tensor) else cur
        setattr(self, mode, getattr(self, mode) * decay + current * (1 - decay))


def lecam_reg(dis_real: Tensor, dis_fake: Tensor, ema: Any) -> Tensor:
    """The regulariser, for each logit; lambda is yours. Here real comes first."""
    return lecam_regularization(dis_real, dis_fake, ema.D_real, ema.D_fake)


def _both(loss: Loss, dis_fake: Tensor, dis_real: Tensor) -> tuple[Tensor, Tensor]:
    """Two losses with a graph each, as there: one of them may be walked back alone."""
    real, fake = check_tensor("dis_real", dis_real), check_tensor("dis_fake", dis_fake)
    return (
        adversarial.discriminator_side_loss(real, True, loss),
        adversarial.discriminator_side_loss(fake, False, loss),
    )


# ---- non-saturating ----------------------------------------------------------------------------


def loss_dcgan_dis(
    dis_fake: Tensor, dis_real: Tensor, ema: Any = None, it: int | None = None
) -> tuple[Tensor, Tensor]:
    """(real, fake): ``softplus(-r)``, ``softplus(f)``; ``ema`` and ``it`` are not used."""
    return _both(BCE(), dis_fake, dis_real)


def loss_dcgan_gen(dis_fake: Tensor, dis_real: Tensor | None = None) -> Tensor:
    """``softplus(-f)``."""
    return adversarial.generator_loss(dis_fake, BCE())


# ---- least squares -----------------------------------------------------------------------------

_LEAST_SQUARES = LeastSquares(real_label=-1.0, fake_label=1.0, generator_label=0.0)


def loss_ls_dis(
    dis_fake: Tensor, dis_real: Tensor, ema: Any = None, it: int | None = None
) -> tuple[Tensor, Tensor]:
    """(real, fake): ``(r + 1)^2``, ``(f - 1)^2``; ``ema`` and ``it`` are not used."""
    return _both(_LEAST_SQUARES, dis_fake, dis_real)


def loss_ls_gen(dis_fake: Tensor, dis_real: Tensor | None = None) -> Tensor:
    """``f^2``."""
    return adversarial.generator_loss(dis_fake, _LEAST_SQUARES)


# ---- relativistic hinge ------------------------------------------------------------------------


def loss_rahinge_dis(
    dis_fake: Tensor, dis_real: Tensor, ema: Any = None, it: int | None = None
) -> tuple[Tensor, Tensor]:
    """(real, fake): ``max(0, 1 - (r - E f)) / 2``, ``max(0, 1 + (f - E r)) / 2``."""
    real, fake = check_tensor("dis_real", dis_real), check_tensor("dis_fake", dis_fake)
    sides = (
        Segment(real, terms.hinge(1.0, 1.0), 0.5, plainly_reduced(fake, "mean")),
        Segment(fake, terms.hinge(-1.0, 1.0), 0.5, plainly_reduced(real, "mean")),
    )
    of_real, of_fake = (ops.multi_tensor_loss([side]).total for side in sides)
    return of_real, of_fake


def loss_rahinge_gen(dis_fake: Tensor, dis_real: Tensor | float) -> Tensor:
    """``max(0, 1 + (E r - E f)) / 2 + E[max(0, 1 - (f - E r))] / 2``, without a gradient to
    ``dis_real``. Its first term is of the two means, as lecam-gan writes it."""
    fake = check_tensor("dis_fake", dis_fake)
    if isinstance(dis_real, Tensor):
        real_mean, fake_mean = mean_logits([dis_real.detach(), fake]).unbind()
    else:
        (fake_mean,) = mean_logits([fake]).unbind()
        real_mean = torch.full_like(fake_mean, dis_real)
    segments = [
        Segment(fake_mean, terms.hinge(1.0, 1.0), 0.5, real_mean),
        Segment(fake, terms.hinge(1.0, 1.0), 0.5, real_mean),
    ]
    return ops.multi_tensor_loss(segments).total


# ---- hinge -------------------------------------------------------------------------------------


def loss_hinge_dis(
    dis_fake: Tensor, dis_real: Tensor, ema: ema_losses | None = None, it: int | None = None
) -> tuple[Tensor, Tensor]:
    """(real, fake): ``max(0, 1 - r)``, ``max(0, 1 + f)``. With ``ema``, its ``D_fake`` and
    ``D_real`` move first, by the mean logits of this batch at iteration ``it``."""
    if ema is not None:
        if it is None:
            raise ValueError("it: the averages need the iteration, got None.")
        means = mean_logits([dis_fake.detach(), dis_real.detach()]).unbind()
        for mode, mean in zip(("D_fake", "D_real"), means):
            ema.update(mean, mode, it)
    return _both(Hinge(), dis_fake, dis_real)


def loss_hinge_gen(dis_fake: Tensor, dis_real: Tensor | None = None) -> Tensor:
    """``-f``."""
    return adversarial.generator_loss(dis_fake, Hinge())


generator_loss = loss_hinge_gen
discriminator_loss = loss_hinge_dis
