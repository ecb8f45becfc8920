"""Thin ``torch.nn.Module`` faces of the functions, for code that builds its losses once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ganloss_fast import losses, matching, penalties
from ganloss_fast.checks import Outputs
from ganloss_fast.losses import LossLike
from ganloss_fast.matching import Features


class _Configured(torch.nn.Module):
    """Holds keyword arguments for a function and shows them in ``repr``."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.options = options

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())


class DiscriminatorLoss(_Configured):
    """:func:`ganloss_fast.discriminator_loss` with its options fixed; called with (real, fake)."""

    def __init__(self, loss: LossLike, **options) -> None:
        super().__init__(loss=losses.resolve(loss), **options)

    def forward(self, real: Outputs, fake: Outputs) -> Tensor:
        return losses.discriminator_loss(real, fake, **self.options)


class GeneratorLoss(_Configured):
    """:func:`ganloss_fast.generator_loss` with its options fixed; called with (fake, real=None)."""

    def __init__(self, loss: LossLike, **options) -> None:
        super().__init__(loss=losses.resolve(loss), **options)

    def forward(self, fake: Outputs, real: Outputs | None = None) -> Tensor:
        return losses.generator_loss(fake, real=real, **self.options)


class FeatureMatchingLoss(_Configured):
    """:func:`ganloss_fast.feature_matching_loss` with its options fixed."""

    def forward(self, real_features: Features, fake_features: Features) -> Tensor:
        return matching.feature_matching_loss(real_features, fake_features, **self.options)


class GradientPenalty(_Configured):
    """:func:`ganloss_fast.gradient_penalty` with its options fixed; called with (critic, real, fake)."""

    def forward(
        self, critic: Callable[..., Tensor], real: Tensor, fake: Tensor, **inputs
    ) -> Tensor:
        return penalties.gradient_penalty(critic, real, fake, **self.options, **inputs)
