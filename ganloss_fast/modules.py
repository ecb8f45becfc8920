"""Thin ``torch.nn.Module`` faces of the functions, for code that builds its losses once.

Each is constructed with the keyword arguments of its function and called with the tensors. A
tensor among those arguments is a parameter or a buffer of the module: trained, saved and moved
with it, a label map inside a loss too.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ganloss_fast.checks import Logits, Value, check_names, describe
from ganloss_fast.losses import adversarial, matching
from ganloss_fast.losses.matching import Features
from ganloss_fast.losses.table import LossLike, resolve_loss
from ganloss_fast.penalties.critic.call import Critic
from ganloss_fast.penalties.gradient_penalty import gradient_penalty
from ganloss_fast.penalties.points import Samples
from ganloss_fast.penalties.table import PenaltyLike, resolve_penalty


class _Held(NamedTuple):
    """Stands in the options for a tensor that the module holds under a name."""

    name: str


def _keywords(function: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]


class _Configured(torch.nn.Module):
    """Holds keyword arguments for a function and shows them in ``repr``."""

    def __init__(
        self, function: Callable[..., Any], constants: dict[str, Any], options: dict[str, Any]
    ) -> None:
        super().__init__()
        check_names(type(self).__name__, list(options), _keywords(function))
        options = {**constants, **options}
        self._options = {name: self._hold(name, value) for name, value in options.items()}
        self._holds_tensors = bool(self._parameters or self._buffers)

    def _hold(self, name: str, value: Any) -> Any:
        """The value with its tensors given to the module."""
        if isinstance(value, torch.nn.Parameter):
            self.register_parameter(name, value)
            return _Held(name)
        if isinstance(value, Tensor):
            self.register_buffer(name, value)
            return _Held(name)
        if isinstance(value, (list, tuple)):
            return [self._hold(f"{name}_{k}", item) for k, item in enumerate(value)]
        if isinstance(value, Value):
            held = {
                field.name: self._hold(field.name, tensor)
                for field in dataclasses.fields(value)  # type: ignore[arg-type]
                if field.init and isinstance(tensor := getattr(value, field.name), Tensor)
            }
            return (value, held) if held else value
        return value

    def _given_back(self, value: Any) -> Any:
        """The value with the tensors as they are now."""
        if isinstance(value, _Held):
            return getattr(self, value.name)
        if isinstance(value, list):
            return [self._given_back(item) for item in value]
        if isinstance(value, tuple):
            constants, held = value
            tensors = {name: self._given_back(item) for name, item in held.items()}
            return dataclasses.replace(constants, **tensors)
        return value

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments that the function gets."""
        if not self._holds_tensors:
            return self._options
        return {name: self._given_back(value) for name, value in self._options.items()}

    def extra_repr(self) -> str:
        shown = {
            name: describe(value) if isinstance(value, (Tensor, list)) else repr(value)
            for name, value in self.options.items()
            if not (isinstance(value, Value) and isinstance(self._options[name], tuple))
        }
        return ", ".join(f"{name}={text}" for name, text in shown.items())


class DiscriminatorLoss(_Configured):
    """:func:`ganloss_fast.discriminator_loss`, called with (real, fake)."""

    def __init__(self, loss: LossLike, **options: Any) -> None:
        constants = {"loss": resolve_loss(loss)}
        super().__init__(adversarial.discriminator_loss, constants, options)

    def forward(self, real: Logits, fake: Logits) -> Tensor:
        return adversarial.discriminator_loss(real, fake, **self.options)


class GeneratorLoss(_Configured):
    """:func:`ganloss_fast.generator_loss`, called with (fake, real=None)."""

    def __init__(self, loss: LossLike, **options: Any) -> None:
        super().__init__(adversarial.generator_loss, {"loss": resolve_loss(loss)}, options)

    def forward(self, fake: Logits, real: Logits | None = None) -> Tensor:
        return adversarial.generator_loss(fake, real=real, **self.options)


class FeatureMatchingLoss(_Configured):
    """:func:`ganloss_fast.feature_matching_loss`, called with (real_features, fake_features)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(matching.feature_matching_loss, {}, options)

    def forward(self, real_features: Features, fake_features: Features) -> Tensor:
        return matching.feature_matching_loss(real_features, fake_features, **self.options)


class GradientPenalty(_Configured):
    """:func:`ganloss_fast.gradient_penalty`, called with (critic, real, fake)."""

    def __init__(self, penalty: PenaltyLike = "wgan-gp", **options: Any) -> None:
        resolve_penalty(penalty)
        super().__init__(gradient_penalty, {"penalty": penalty}, options)

    def forward(
        self,
        critic: Critic,
        real: Samples | None,
        fake: Samples | None = None,
        **inputs: Any,
    ) -> Tensor:
        return gradient_penalty(critic, real, fake, **self.options, **inputs)
