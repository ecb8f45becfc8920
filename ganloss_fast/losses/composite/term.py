"""What a term of a composite loss is: a weight, and segments of the op."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ganloss_fast.checks import (
    Value,
    Weight,
    as_outputs,
    check_number,
    check_number_field,
    check_same_device,
    check_weight,
    describe,
    quoted,
)
from ganloss_fast.ops.terms import Segment, Term

LayerWeights = Mapping[str, float] | Sequence[float] | None
Maps = Mapping[str, Tensor] | Sequence[Tensor] | Tensor


class LossTerm(Value, ABC):
    """A summand of :func:`ganloss_fast.composite_loss`.

    ``weight * value``, where the value is a sum of segments. The tensors are those of one step; a
    term is made for it and thrown away.
    """

    weight: Weight

    @abstractmethod
    def segments(self) -> list[Segment]:
        """The value, for a weight of 1."""

    def _check_weight(self) -> None:
        if not isinstance(self.weight, Tensor):
            check_number_field(self, "weight")
        check_weight("weight", self.weight)


def as_compared(output: Tensor, target: Tensor, detach_target: bool) -> tuple[Tensor, Tensor]:
    """Both in the wider dtype of the two, the target without its graph unless that is wanted."""
    if detach_target:
        target = target.detach()
    if output.dtype != target.dtype:  # a generator under autocast, and data that never was
        dtype = torch.promote_types(output.dtype, target.dtype)
        output, target = output.to(dtype), target.to(dtype)
    return output, target


def distance_segment(
    output: Tensor, target: Tensor, term: Term, scale: float, detach_target: bool
) -> Segment:
    """``scale * mean(term(output - target))``."""
    output, target = as_compared(output, target, detach_target)
    return Segment(output, term, scale, target)


def pairs_of(
    output_name: str, output: object, target_name: str, target: object
) -> list[tuple[Tensor, Tensor]]:
    """Outputs and targets side by side: as many, alike in shape, on one device."""
    outputs, targets = as_outputs(output_name, output), as_outputs(target_name, target)
    if len(outputs) != len(targets):
        raise ValueError(
            f"{target_name}: expected as many tensors as {output_name} has, {len(outputs)}, got "
            f"{len(targets)}."
        )
    check_same_device(target_name, targets[0], output_name, outputs[0])
    for k, (one, other) in enumerate(zip(outputs, targets)):
        if one.shape != other.shape:  # torch would broadcast them, to a loss that nobody means
            where = target_name if isinstance(target, Tensor) else f"{target_name}[{k}]"
            raise ValueError(
                f"{where}: expected the shape of {output_name}, {list(one.shape)}, got "
                f"{list(other.shape)}."
            )
    return list(zip(outputs, targets))


def weighted_maps(
    output_features: Maps, target_features: Maps, layer_weights: LayerWeights
) -> list[tuple[Tensor, Tensor, float]]:
    """(output, target, weight) of every layer that counts."""
    names = "output_features", "target_features"
    if isinstance(output_features, Mapping):
        return _of_named_maps(output_features, target_features, layer_weights)
    pairs = pairs_of(names[0], output_features, names[1], target_features)
    if layer_weights is None:
        return [(*pair, 1.0) for pair in pairs]
    if isinstance(layer_weights, Mapping) or not isinstance(layer_weights, (list, tuple)):
        raise TypeError(
            "layer_weights: expected a sequence of numbers, one for each feature map, got "
            f"{describe(layer_weights)}."
        )
    if len(layer_weights) != len(pairs):
        raise ValueError(
            f"layer_weights: expected one for each of the {len(pairs)} feature maps, got "
            f"{len(layer_weights)}."
        )
    return [
        (*pair, check_number(f"layer_weights[{k}]", weight))
        for k, (pair, weight) in enumerate(zip(pairs, layer_weights))
    ]


def _of_named_maps(
    outputs: Mapping[str, Tensor], targets: Maps, layer_weights: LayerWeights
) -> list[tuple[Tensor, Tensor, float]]:
    if not isinstance(targets, Mapping):
        raise TypeError(
            "target_features: expected a dict with the layers of output_features, got "
            f"{describe(targets)}."
        )
    if layer_weights is None:
        layer_weights = dict.fromkeys(outputs, 1.0)
    if not isinstance(layer_weights, Mapping):
        raise TypeError(
            "layer_weights: the feature maps have names; expected a dict of their weights, got "
            f"{describe(layer_weights)}."
        )
    for owner, features in (("output_features", outputs), ("target_features", targets)):
        missing = [layer for layer in layer_weights if layer not in features]
        if missing:
            raise ValueError(f"{owner}: there is no feature map {quoted(missing[0])}.")
    layers = list(layer_weights)
    pairs = pairs_of(
        "output_features",
        [outputs[layer] for layer in layers],
        "target_features",
        [targets[layer] for layer in layers],
    )
    return [
        (*pair, check_number(f"layer_weights[{quoted(layer)}]", layer_weights[layer]))
        for layer, pair in zip(layers, pairs)
    ]
