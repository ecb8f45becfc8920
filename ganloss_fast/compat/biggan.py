"""BigGAN (ajbrock/BigGAN-PyTorch): ``losses.py``. **The fake logits come first.**"""

from __future__ import annotations

from torch import Tensor

from ganloss_fast.losses.adversarial import discriminator_side_loss
from ganloss_fast.losses.adversarial import generator_loss as _generator_loss
from ganloss_fast.losses.table import LossLike


def _both_sides(dis_fake: Tensor, dis_real: Tensor, loss: LossLike) -> tuple[Tensor, Tensor]:
    return (
        discriminator_side_loss(dis_real, True, loss),
        discriminator_side_loss(dis_fake, False, loss),
    )


def loss_dcgan_dis(dis_fake: Tensor, dis_real: Tensor) -> tuple[Tensor, Tensor]:
    """``(E[softplus(-r)], E[softplus(f)])``, each 0-d."""
    return _both_sides(dis_fake, dis_real, "bce")


def loss_dcgan_gen(dis_fake: Tensor) -> Tensor:
    """``E[softplus(-f)]``, 0-d."""
    return _generator_loss(dis_fake, "bce")


def loss_hinge_dis(dis_fake: Tensor, dis_real: Tensor) -> tuple[Tensor, Tensor]:
    """``(E[max(0, 1 - r)], E[max(0, 1 + f)])``, each 0-d."""
    return _both_sides(dis_fake, dis_real, "hinge")


def loss_hinge_gen(dis_fake: Tensor) -> Tensor:
    """``-E[f]``, 0-d."""
    return _generator_loss(dis_fake, "hinge")


generator_loss = loss_hinge_gen
discriminator_loss = loss_hinge_dis
