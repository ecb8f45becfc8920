"""Feature maps of a fixed network, for perceptual and style losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ganloss_fast.checks import check_flag, check_number, check_tensor, describe, quoted

Extracted = Mapping[str, Tensor] | Sequence[Tensor]


class FeaturePair(NamedTuple):
    """Feature maps of what was generated and of what it should be."""

    output: Extracted
    target: Extracted


class SequentialFeatures(nn.Module):
    """The outputs of some layers of a ``torch.nn.Sequential``, by name; nothing runs behind them.

    Args:
        network: for instance ``torchvision.models.vgg19(...).features``.
        layers: names, and the positions in the network whose outputs they are: ``{"conv5_4": 34}``
            is VGG-19's map ahead of its activation.

    Raises:
        ValueError: if there are no layers, or a position is not in the network.
        TypeError: if the network is not a Sequential.
    """

    def __init__(self, network: nn.Sequential, layers: Mapping[str, int]) -> None:
        super().__init__()
        if not isinstance(network, nn.Sequential):
            raise TypeError(f"network: expected a torch.nn.Sequential, got {describe(network)}.")
        if not isinstance(layers, Mapping) or not layers:
            raise ValueError(
                f"layers: expected a dict of names and positions, got {describe(layers)}."
            )
        for name, position in layers.items():
            if type(position) is not int or not 0 <= position < len(network):
                raise ValueError(
                    f"layers: {quoted(name)} should be a position below {len(network)}, got "
                    f"{describe(position)}."
                )
        self.network = network[: max(layers.values()) + 1]
        self._names = {position: name for name, position in layers.items()}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found = {}
        layers = list(self.network)
        for position, (layer, following) in enumerate(zip(layers, [*layers[1:], None])):
            x = layer(x)
            if position in self._names:
                # An activation that works in place would overwrite the map.
                is_overwritten = getattr(following, "inplace", False)
                found[self._names[position]] = x.clone() if is_overwritten else x
        return found


class PerceptualFeatures(nn.Module):
    """A fixed network that gives the feature maps of outputs and targets.

    Called with (output, target), it returns a :class:`FeaturePair` for :class:`Perceptual` and
    :class:`Gram`. The network's parameters are frozen and it stays in ``eval()`` mode; the
    target runs without a graph.

    Args:
        network: any function or module from images to a dict or a sequence of feature maps, such
            as :class:`SequentialFeatures`.
        mean: per channel; with ``std``, images become ``(x - mean) / std`` first. For the networks
            of torchvision: ``(0.485, 0.456, 0.406)`` and ``(0.229, 0.224, 0.225)``, of images in
            [0, 1].
        std: per channel.
        from_signed: images are in [-1, 1]: they become ``(x + 1) / 2`` before that.
        detach_target: run the target without a graph.

    Raises:
        ValueError: if only one of ``mean`` and ``std`` is given, or they differ in length, or a
            deviation is not positive.
        TypeError: if the network is not callable.
    """

    scale: Tensor | None
    shift: Tensor | None

    def __init__(
        self,
        network: Callable[[Tensor], Extracted],
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        from_signed: bool = False,
        detach_target: bool = True,
    ) -> None:
        super().__init__()
        if not callable(network):
            raise TypeError(f"network: expected a function or a module, got {describe(network)}.")
        check_flag("from_signed", from_signed)
        self.detach_target = check_flag("detach_target", detach_target)
        self.network = network
        if isinstance(network, nn.Module):
            network.requires_grad_(False)
        scale, shift = _affine(mean, std, from_signed)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)
        self.train(False)

    def train(self, mode: bool = True) -> PerceptualFeatures:
        """Without effect: a network that normalises by its batch would be another one."""
        return super().train(False)

    def extract(self, images: Tensor) -> Extracted:
        """The feature maps of images."""
        check_tensor("images", images)
        if self.scale is not None and self.shift is not None:
            if images.dim() < 3 or self.scale.numel() not in (1, images.shape[1]):
                raise ValueError(
                    f"images: expected {self.scale.numel()} channels like mean and std, got shape "
                    f"{list(images.shape)}."
                )
            by_channel = (-1, *[1] * (images.dim() - 2))
            scale = self.scale.to(images.dtype).view(by_channel)
            images = torch.addcmul(self.shift.to(images.dtype).view(by_channel), images, scale)
        found = self.network(images)
        if isinstance(found, Tensor):
            return [found]
        if not isinstance(found, (Mapping, list, tuple)):
            raise TypeError(
                "network: expected it to return a dict or a sequence of feature maps, got "
                f"{describe(found)}."
            )
        return found

    def forward(self, output: Tensor, target: Tensor) -> FeaturePair:
        own = self.extract(output)
        if not self.detach_target:
            return FeaturePair(own, self.extract(target))
        with torch.no_grad():
            return FeaturePair(own, self.extract(target))


def _affine(mean: Any, std: Any, from_signed: bool) -> tuple[Tensor | None, Tensor | None]:
    """scale and shift [C] of one pass that does both normalisations."""
    if (mean is None) != (std is None):
        raise ValueError("mean, std: give both, or none.")
    if mean is None:
        mean, std = (0.0,), (1.0,)
        if not from_signed:
            return None, None
    for name, given in (("mean", mean), ("std", std)):
        if not isinstance(given, (list, tuple)) or not given:
            raise TypeError(
                f"{name}: expected numbers, one for each channel, got {describe(given)}."
            )
    if len(mean) != len(std):
        raise ValueError(f"std: expected {len(mean)} numbers like mean, got {len(std)}.")
    means = [check_number(f"mean[{k}]", value) for k, value in enumerate(mean)]
    deviations = [check_number(f"std[{k}]", value) for k, value in enumerate(std)]
    if min(deviations) <= 0:
        raise ValueError(f"std: expected positive numbers, got {min(deviations)}.")
    half = 0.5 if from_signed else 1.0
    scale = torch.tensor([half / s for s in deviations])
    shift = torch.tensor([(1.0 - half - m) / s for m, s in zip(means, deviations)])
    return scale, shift
