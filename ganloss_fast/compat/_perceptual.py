"""Perceptual and style losses of image codebases, over a network that the user brings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from ganloss_fast.checks import check_number, describe
from ganloss_fast.compat._criteria import check_mode
from ganloss_fast.losses.composite.composite_loss import composite_loss
from ganloss_fast.losses.composite.gram import gram_matrix
from ganloss_fast.losses.composite.perceptual_features import PerceptualFeatures
from ganloss_fast.losses.composite.terms import Gram, Perceptual

Extractor = Callable[[Tensor], Any]

# Of the photographs that torchvision's networks were trained on, in [0, 1].
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


def check_extractor(network: Extractor | None) -> Extractor:
    if network is None:
        raise TypeError(
            "network: expected what gives the feature maps, such as "
            "SequentialFeatures(torchvision.models.vgg19(...).features, {'conv5_4': 34}), got None."
        )
    return network


class LayeredLoss(torch.nn.Module):
    """``(perceptual, style)`` of the layers that have a weight; None for a part without one.

    A subclass says which criteria there are: op criteria by name, None for the norm of the
    difference of whole maps.
    """

    CRITERIA: ClassVar[Mapping[str, str | None]]

    def __init__(
        self,
        layer_weights: Mapping[str, float],
        style_layer_weights: Mapping[str, float],
        use_input_norm: bool,
        from_signed: bool,
        perceptual_weight: float,
        style_weight: float,
        criterion: str,
        network: Extractor | None,
    ) -> None:
        super().__init__()
        extractor = check_extractor(network)
        if not isinstance(layer_weights, Mapping) or not layer_weights:
            raise TypeError(
                "layer_weights: expected a dict of layers and their weights, got "
                f"{describe(layer_weights)}."
            )
        check_mode("criterion", criterion, list(self.CRITERIA))
        self.layer_weights = layer_weights
        self.style_layer_weights = style_layer_weights
        self.perceptual_weight = check_number("perceptual_weight", perceptual_weight)
        self.style_weight = check_number("style_weight", style_weight)
        self.criterion_type = criterion
        statistics: dict[str, Any] = {}
        if use_input_norm:
            statistics = {"mean": MEAN, "std": DEVIATION}
        self.vgg = PerceptualFeatures(extractor, from_signed=from_signed, **statistics)

    def forward(self, x: Tensor, gt: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The two losses, 0-d.

        Args:
            x: generated images [B, C, H, W].
            gt: what they should be, to which no gradient flows.
        """
        own, other = self.vgg(x, gt.detach())
        perceptual = style = None
        if self.perceptual_weight > 0:
            perceptual = self._distance(
                Perceptual, own, other, self.layer_weights, self.perceptual_weight
            )
        if self.style_weight > 0:
            style = self._distance(Gram, own, other, self.style_layer_weights, self.style_weight)
        return perceptual, style

    def _distance(
        self,
        term: type[Perceptual],
        own: Mapping[str, Tensor],
        other: Mapping[str, Tensor],
        weights: Mapping[str, float],
        weight: float,
    ) -> Tensor:
        criterion: Any = self.CRITERIA[self.criterion_type]
        if criterion is not None:
            made = term(own, other, weight, layer_weights=dict(weights), criterion=criterion)
            return composite_loss(distance=made).total
        compared = gram_matrix if term is Gram else torch.clone
        norms = [
            torch.linalg.vector_norm(compared(own[name]) - compared(other[name])) * share
            for name, share in weights.items()
        ]
        return weight * torch.stack(norms).sum()
