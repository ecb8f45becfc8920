"""Thin ``torch.nn.Module`` faces of the functions, for code that builds its losses once.

Each is constructed with the keyword arguments of its function and called with the tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ganloss_fast import adversarial, losses, matching, penalties
from ganloss_fast.checks import Outputs
from ganloss_fast.losses import LossLike
from ganloss_fast.matching import Features
from ganloss_fast.sampling import Samples


class _Configured(torch.nn.Module):
    """Holds keyword arguments for a function and shows them in ``repr``."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())


class DiscriminatorLoss(_Configured):
    """:func:`ganloss_fast.discriminator_loss`, called with (real, fake)."""

    def __init__(self, loss: LossLike, **options: Any) -> None:
        super().__init__(loss=losses.resolve(loss), **options)

    def forward(self, real: Outputs, fake: Outputs) -> Tensor:
        return adversarial.discriminator_loss(real, fake, **self.options)


class GeneratorLoss(_Configured):
    """:func:`ganloss_fast.generator_loss`, called with (fake, real=None)."""

    def __init__(self, loss: LossLike, **options: Any) -> None:
        super().__init__(loss=losses.resolve(loss), **options)

    def forward(self, fake: Outputs, real: Outputs | None = None) -> Tensor:
        return adversarial.generator_loss(fake, real=real, **self.options)


class FeatureMatchingLoss(_Configured):
    """:func:`ganloss_fast.feature_matching_loss`, called with (real_features, fake_features)."""

    def forward(self, real_features: Features, fake_features: Features) -> Tensor:
        return matching.feature_matching_loss(real_features, fake_features, **self.options)


class GradientPenalty(_Configured):
    """:func:`ganloss_fast.gradient_penalty`, called with (critic, real, fake)."""

    def forward(
        self,
        critic: Callable[..., Any],
        real: Samples,
        fake: Samples | None = None,
        **inputs: Any,
    ) -> Tensor:
        return penalties.gradient_penalty(critic, real, fake, **self.options, **inputs)
