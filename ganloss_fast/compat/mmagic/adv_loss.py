"""``mmagic/models/losses/adv_loss.py``: criteria that call the discriminator themselves."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from ganloss_fast.compat._criteria import check_mode
from ganloss_fast.compat.mmagic.gan_loss import GANLoss, gradient_penalty_loss
from ganloss_fast.losses.adversarial import discriminator_loss, generator_loss
from ganloss_fast.losses.table import LeastSquares, LossLike

Network = Callable[[Tensor], Tensor]


class DiscLoss(torch.nn.Module):
    """Half the discriminator's loss of both sides, or the generator's loss.

    Args:
        gan_type: a mode of :class:`GANLoss`.
    """

    def __init__(self, gan_type: str = "vanilla") -> None:
        super().__init__()
        self.criterionGAN = GANLoss(gan_type=gan_type)

    def name(self) -> str:
        return "DiscLoss"

    def forward(
        self, net: Network, fakeB: Tensor, realB: Tensor, model: str = "discriminator"
    ) -> Tensor:
        """0-d loss.

        Args:
            net: the discriminator.
            fakeB: generated samples; detached in the discriminator's loss.
            realB: real samples.
            model: ``"discriminator"``, or anything else for the generator.
        """
        if model != "discriminator":
            return self.criterionGAN(net(fakeB), True)  # type: ignore[no-any-return]
        fake = net(fakeB.detach())
        real = net(realB)
        loss = self.criterionGAN.loss_of(self.criterionGAN.gan_type)
        return discriminator_loss(real, fake, loss, real_weight=0.5, fake_weight=0.5)


class _Pool:
    """The logits of the last samples, detached, and their mean."""

    def __init__(self, size: int) -> None:
        self._logits: deque[Tensor] = deque(maxlen=size)

    def add(self, logits: Tensor) -> None:
        self._logits.extend(logits.detach().unbind(0))

    def mean(self) -> Tensor:
        if not self._logits:
            raise ValueError(
                "model: the generator's loss compares with logits of discriminator steps, and "
                "there was none; call with model='discriminator' first."
            )
        return torch.stack(list(self._logits)).mean()


class RelativisticDiscLoss(torch.nn.Module):
    """Average relativistic loss (Jolicoeur-Martineau, 2018) about the means of the last 50 logits.

    .. math:: L_D = (E[bce(r - \\bar f, 1)] + E[bce(f - \\bar r, 0)]) / 2

    and with the labels swapped for the generator. No gradient flows through the means, which hold
    the samples of discriminator steps, the current one among them.
    """

    LOSS: ClassVar[LossLike] = "bce"
    POOL_SIZE: ClassVar[int] = 50

    def __init__(self) -> None:
        super().__init__()
        self.fake_pool = _Pool(self.POOL_SIZE)
        self.real_pool = _Pool(self.POOL_SIZE)

    def name(self) -> str:
        return type(self).__name__

    def forward(
        self, net: Network, fakeB: Tensor, realB: Tensor, model: str = "discriminator"
    ) -> Tensor:
        """0-d loss; the arguments are those of :class:`DiscLoss`."""
        is_discriminator = model == "discriminator"
        fake = net(fakeB.detach() if is_discriminator else fakeB)
        real = net(realB)
        if is_discriminator:
            self.fake_pool.add(fake)
            self.real_pool.add(real)
        above, below = real - self.fake_pool.mean(), fake - self.real_pool.mean()
        if not is_discriminator:
            above, below = below, above
        return discriminator_loss(above, below, self.LOSS, real_weight=0.5, fake_weight=0.5)


class RelativisticDiscLossLS(RelativisticDiscLoss):
    """The same with least squares, ``(z - 1)^2`` and ``(z + 1)^2``."""

    LOSS: ClassVar[LossLike] = LeastSquares(fake_label=-1.0)


class DiscLossWGANGP(torch.nn.Module):
    """WGAN-GP: ``E[f] - E[r] + 10 gradient_penalty_loss``; the norm is that of every pixel."""

    LAMBDA: ClassVar[float] = 10.0

    def name(self) -> str:
        return "DiscLossWGAN-GP"

    def forward(
        self, net: Network, fakeB: Tensor, realB: Tensor, model: str = "discriminator"
    ) -> Tensor:
        """0-d loss; the arguments are those of :class:`DiscLoss`."""
        if model != "discriminator":
            return generator_loss(net(fakeB), "wasserstein")
        fake = net(fakeB.detach())
        real = net(realB)
        penalty = gradient_penalty_loss(net, realB, fakeB, loss_weight=self.LAMBDA)
        return discriminator_loss(real, fake, "wasserstein") + penalty


_KINDS: dict[str, Callable[[], torch.nn.Module]] = {
    "wgan-gp": DiscLossWGANGP,
    "lsgan": lambda: DiscLoss("lsgan"),
    "gan": DiscLoss,
    "ragan": RelativisticDiscLoss,
    "ragan-ls": RelativisticDiscLossLS,
}


def AdvLoss(loss_type: str, *, l1_for_lsgan: bool = False) -> torch.nn.Module:
    """The criterion of DeblurGAN-v2 with a name (Kupyn et al., 2019).

    Args:
        loss_type: ``"wgan-gp"``, ``"lsgan"``, ``"gan"``, ``"ragan"`` or ``"ragan-ls"``.
        l1_for_lsgan: for ``"lsgan"``, what mmagic computes under that name: ``E[|D - t|]``. Off,
            it is least squares.

    Raises:
        ValueError: for another type.
    """
    check_mode("loss_type", loss_type, list(_KINDS))
    if loss_type == "lsgan" and l1_for_lsgan:
        return DiscLoss("l1")
    return _KINDS[loss_type]()
