"""AudioCraft (facebookresearch/audiocraft): ``adversarial/losses.py`` and ``losses/balancer.py``.

The fake side comes first. The criteria may be mixed with callables of your own; those of this
module are computed for all discriminators in one call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from ganloss_fast.checks import check_choice, describe
from ganloss_fast.compat import encodec
from ganloss_fast.compat._lists import check_maps
from ganloss_fast.compat._processes import average_over_processes, broadcast
from ganloss_fast.freezing import frozen
from ganloss_fast.losses.adversarial import (
    discriminator_loss,
    discriminator_side_loss,
    generator_loss,
)
from ganloss_fast.losses.details import Reduction
from ganloss_fast.losses.matching import feature_matching_loss
from ganloss_fast.losses.table import Hinge, LeastSquares, Loss

ADVERSARIAL_LOSSES = ["mse", "hinge", "hinge2"]

_MSE, _HINGE, _HINGE2 = LeastSquares(), Hinge(), Hinge(generator_form="hinge")
Criterion = Callable[[Tensor], Tensor]

# ---- criteria of one logit tensor --------------------------------------------------------------


def mse_real_loss(x: Tensor) -> Tensor:
    """``E[(x - 1)^2]``."""
    return discriminator_side_loss(x, True, _MSE)


def mse_fake_loss(x: Tensor) -> Tensor:
    """``E[x^2]``."""
    return discriminator_side_loss(x, False, _MSE)


def hinge_real_loss(x: Tensor) -> Tensor:
    """``E[max(0, 1 - x)]``. The slope at the kink is 0, where ``torch.min`` has a half."""
    return discriminator_side_loss(x, True, _HINGE)


def hinge_fake_loss(x: Tensor) -> Tensor:
    """``E[max(0, 1 + x)]``."""
    return discriminator_side_loss(x, False, _HINGE)


def _or_zero(x: Tensor, loss: Loss) -> Tensor:
    """Of no logits at all, a zero of shape [1]."""
    return generator_loss(x, loss) if x.numel() else torch.zeros(1, device=x.device)


def mse_loss(x: Tensor) -> Tensor:
    """``E[(x - 1)^2]`` for the generator; a zero of shape [1] for no logits."""
    return _or_zero(x, _MSE)


def hinge_loss(x: Tensor) -> Tensor:
    """``-E[x]``; a zero of shape [1] for no logits."""
    return _or_zero(x, _HINGE)


def hinge2_loss(x: Tensor) -> Tensor:
    """``E[max(0, 1 - x)]`` for the generator; a zero of shape [1] for no logits."""
    return _or_zero(x, _HINGE2)


def get_adv_criterion(loss_type: str) -> Criterion:
    """The generator's criterion: ``"mse"``, ``"hinge"`` or ``"hinge2"``."""
    check_choice("loss_type", loss_type, ADVERSARIAL_LOSSES)
    return {"mse": mse_loss, "hinge": hinge_loss, "hinge2": hinge2_loss}[loss_type]


def get_fake_criterion(loss_type: str) -> Criterion:
    """The discriminator's criterion of fake logits."""
    check_choice("loss_type", loss_type, ADVERSARIAL_LOSSES)
    return mse_fake_loss if loss_type == "mse" else hinge_fake_loss


def get_real_criterion(loss_type: str) -> Criterion:
    """The discriminator's criterion of real logits."""
    check_choice("loss_type", loss_type, ADVERSARIAL_LOSSES)
    return mse_real_loss if loss_type == "mse" else hinge_real_loss


# What can be computed for all discriminators in one call.
_GENERATOR: dict[Any, Loss] = {mse_loss: _MSE, hinge_loss: _HINGE, hinge2_loss: _HINGE2}
_REAL: dict[Any, Loss] = {mse_real_loss: _MSE, hinge_real_loss: _HINGE}
_FAKE: dict[Any, Loss] = {mse_fake_loss: _MSE, hinge_fake_loss: _HINGE}
_DISTANCES: dict[type[Module], str] = {torch.nn.L1Loss: "l1", torch.nn.MSELoss: "mse"}


# ---- feature matching --------------------------------------------------------------------------


class FeatureMatchingLoss(Module):
    """A distance between the maps of one discriminator; the gradient goes into both sides.

    Args:
        loss: of two maps. ``L1Loss()`` and ``MSELoss()`` are computed for all maps in one call.
        normalize: mean over the maps, instead of their sum.
    """

    def __init__(self, loss: Module | None = None, normalize: bool = True) -> None:
        super().__init__()
        self.loss = torch.nn.L1Loss() if loss is None else loss
        self.normalize = normalize

    def criterion(self) -> str | None:
        """What the fused loss calls the distance; None for one of your own."""
        name = _DISTANCES.get(type(self.loss))
        return name if name and getattr(self.loss, "reduction", None) == "mean" else None

    def forward(self, fmap_fake: Sequence[Tensor], fmap_real: Sequence[Tensor]) -> Tensor:
        return self.over_all([fmap_fake], [fmap_real], "sum")

    def over_all(
        self,
        fmaps_fake: Sequence[Sequence[Tensor]],
        fmaps_real: Sequence[Sequence[Tensor]],
        reduction: Reduction,
    ) -> Tensor:
        """Of a list of maps for each discriminator."""
        fakes, reals = check_maps("fmap_fake", fmaps_fake), check_maps("fmap_real", fmaps_real)
        layers: Reduction = "mean" if self.normalize else "sum"
        name = self.criterion()
        if name is not None:
            return feature_matching_loss(
                reals,
                fakes,
                criterion=name,  # type: ignore[arg-type]
                detach_real=False,
                layer_reduction=layers,
                discriminator_reduction=reduction,
            )
        sums = []
        for fake, real in zip(fakes, reals, strict=True):
            distances = [self.loss(f, r) for f, r in zip(fake, real, strict=True)]
            sums.append(sum(distances) / (len(distances) if self.normalize else 1))
        total: Tensor = sum(sums) / (len(sums) if reduction == "mean" else 1)
        return total


# ---- a step ------------------------------------------------------------------------------------


class AdversarialLoss(Module):
    """Trains the adversary, and judges the generator by it.

    Args:
        adversary: gives a list of logits, and a list of feature maps for each of them.
        optimizer: of the adversary. Its state is saved with this module.
        loss: the generator's criterion of one logit tensor.
        loss_real: the adversary's criterion of real logits.
        loss_fake: and of fake ones.
        loss_feat: of the maps of one discriminator, fake first.
        normalize: mean over discriminators, instead of their sum.
    """

    def __init__(
        self,
        adversary: Module,
        optimizer: torch.optim.Optimizer,
        loss: Criterion,
        loss_real: Criterion,
        loss_fake: Criterion,
        loss_feat: Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor] | None = None,
        normalize: bool = True,
    ) -> None:
        super().__init__()
        self.adversary = adversary
        broadcast(adversary)
        self.optimizer = optimizer
        self.loss = loss
        self.loss_real = loss_real
        self.loss_fake = loss_fake
        self.loss_feat = loss_feat
        self.normalize = normalize

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "optimizer"] = self.optimizer.state_dict()

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        self.optimizer.load_state_dict(state_dict.pop(prefix + "optimizer"))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def get_adversary_pred(self, x: Tensor) -> tuple[list[Tensor], list[list[Tensor]]]:
        """Logits and feature maps of the adversary, which must be lists."""
        logits, fmaps = self.adversary(x)
        for k, logit in enumerate(logits if isinstance(logits, list) else [None]):
            if not isinstance(logit, Tensor):
                raise TypeError(
                    "adversary: expected a list of tensors as logits, got "
                    + (f"{describe(logit)} in entry {k}." if logit else f"{describe(logits)}.")
                )
        if not isinstance(fmaps, list) or not all(isinstance(maps, list) for maps in fmaps):
            raise TypeError(
                "adversary: expected a list of feature maps for each of its logits, got "
                f"{describe(fmaps)}."
            )
        return logits, fmaps

    @property
    def _reduction(self) -> Reduction:
        return "mean" if self.normalize else "sum"

    def _per_logit(self, criterion: Criterion, logits: Sequence[Tensor]) -> Tensor:
        total = logits[0].new_zeros((), dtype=torch.float32)
        for logit in logits:
            total = total + criterion(logit).reshape(())
        return total / len(logits) if self.normalize else total

    def _side(
        self, criterion: Criterion, table: Mapping[Any, Loss], logits: list[Tensor], is_real: bool
    ) -> Tensor:
        known = table.get(criterion)
        if known is None:
            return self._per_logit(criterion, logits)
        return discriminator_side_loss(logits, is_real, known, output_reduction=self._reduction)

    def train_adv(self, fake: Tensor, real: Tensor) -> Tensor:
        """One step of the adversary's optimizer; gradients are averaged over processes.

        Returns:
            The loss, whose backward has been.
        """
        fakes, _ = self.get_adversary_pred(fake.detach())
        reals, _ = self.get_adversary_pred(real.detach())
        known = _REAL.get(self.loss_real)
        if known is not None and known == _FAKE.get(self.loss_fake):
            loss = discriminator_loss(reals, fakes, known, output_reduction=self._reduction)
        else:
            loss = self._side(self.loss_fake, _FAKE, fakes, False)
            loss = loss + self._side(self.loss_real, _REAL, reals, True)
        self.optimizer.zero_grad()
        loss.backward()
        average_over_processes(p.grad for p in self.adversary.parameters())
        average_over_processes(self.adversary.buffers())
        self.optimizer.step()
        return loss

    def forward(self, fake: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """The generator's loss, and feature matching, or 0 without ``loss_feat``."""
        with frozen(self.adversary):
            fakes, fake_maps = self.get_adversary_pred(fake)
            _, real_maps = self.get_adversary_pred(real)
            known = _GENERATOR.get(self.loss)
            if known is None or any(logits.numel() == 0 for logits in fakes):
                adv = self._per_logit(self.loss, fakes)
            else:
                adv = generator_loss(fakes, known, output_reduction=self._reduction)
            return adv, self._features(fake_maps, real_maps)

    def _features(self, fakes: list[list[Tensor]], reals: list[list[Tensor]]) -> Tensor:
        if self.loss_feat is None:
            return torch.zeros((), device=fakes[0][0].device)
        if isinstance(self.loss_feat, FeatureMatchingLoss):
            return self.loss_feat.over_all(fakes, reals, self._reduction)
        parts = [self.loss_feat(f, r).reshape(()) for f, r in zip(fakes, reals, strict=True)]
        total = torch.stack(parts).sum()
        return total / len(parts) if self.normalize else total


class Balancer(encodec.Balancer):
    """EnCodec's, under AudioCraft's names; ``backward`` returns the effective loss.

    Args:
        weights: a number for each loss.
        balance_grads: False for a weighted sum of the losses.
        total_norm, ema_decay, per_batch_item, epsilon, monitor: as there; 0 or None as norm or
            decay is 1.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        balance_grads: bool = True,
        total_norm: float = 1.0,
        ema_decay: float = 0.999,
        per_batch_item: bool = True,
        epsilon: float = 1e-12,
        monitor: bool = False,
    ) -> None:
        super().__init__(
            weights,
            balance_grads,
            total_norm or 1.0,
            ema_decay or 1.0,
            per_batch_item,
            epsilon,
            monitor,
        )

    def backward(  # type: ignore[override]
        self, losses: Mapping[str, Tensor], input: Tensor
    ) -> Tensor:
        """As in EnCodec. Returns the weighted sum of the losses, detached."""
        return self._balanced(losses, input).total
