"""Feature matching: the distance between feature maps of real and generated samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ganloss_fast import ops
from ganloss_fast.checks import (
    Weight,
    as_outputs,
    check_choice,
    check_same_device,
    check_weight,
    describe,
)
from ganloss_fast.losses.details import REDUCTIONS, Reduction
from ganloss_fast.losses.reductions import number_of, weighted
from ganloss_fast.ops import terms
from ganloss_fast.ops.terms import Segment

Features = Sequence[Tensor] | Sequence[Sequence[Tensor]]

CRITERIA = {"l1": terms.ABSOLUTE, "mse": terms.squared(0.0)}


def _by_discriminator(name: str, features: object) -> list[list[Tensor]]:
    """One list of maps, or one list for each discriminator, as the latter."""
    if not isinstance(features, (list, tuple)):
        raise TypeError(
            f"{name}: expected a sequence of feature maps, or one sequence for each "
            f"discriminator, got {describe(features)}."
        )
    if features and isinstance(features[0], (list, tuple)):
        for k, maps in enumerate(features):
            if not isinstance(maps, (list, tuple)):
                raise TypeError(
                    f"{name}[{k}]: expected a sequence of feature maps like entry 0, got "
                    f"{describe(maps)}."
                )
        return [as_outputs(f"{name}[{k}]", maps) for k, maps in enumerate(features)]
    return [as_outputs(name, features)]


def _counts(by_discriminator: list[list[Tensor]]) -> str:
    counts = [str(len(maps)) for maps in by_discriminator]
    return f"[{', '.join(counts[:12])}{', ...' if len(counts) > 12 else ''}]"


def _check_alike(reals: list[list[Tensor]], fakes: list[list[Tensor]]) -> None:
    if [len(maps) for maps in reals] != [len(maps) for maps in fakes]:
        raise ValueError(
            "real_features and fake_features must hold the same number of maps for each "
            f"discriminator: got {_counts(reals)} real and {_counts(fakes)} fake."
        )
    for d, (real_maps, fake_maps) in enumerate(zip(reals, fakes)):
        for k, (r, f) in enumerate(zip(real_maps, fake_maps)):
            if r.shape != f.shape or r.dtype != f.dtype:
                raise ValueError(
                    f"feature map {k} of discriminator {d}: real is {list(r.shape)} {r.dtype} "
                    f"and fake is {list(f.shape)} {f.dtype}; they must be alike."
                )
            check_same_device("fake_features", f, "real_features", reals[0][0])


def _refuse_swapped(reals: list[list[Tensor]], fakes: list[list[Tensor]]) -> None:
    """Some codebases pass the generated maps first. All gradients would be detached, silently."""
    if not torch.is_grad_enabled() or any(f.requires_grad for maps in fakes for f in maps):
        return
    if any(r.requires_grad for maps in reals for r in maps):
        raise ValueError(
            "real_features and fake_features look swapped: the real maps require grad, the "
            "generated ones do not, and detach_real leaves no gradient at all. The call is "
            "feature_matching_loss(real_features, fake_features)."
        )


def matching_segments(
    real_features: Features,
    fake_features: Features,
    criterion: str,
    detach_real: bool,
    include_last: bool,
    layer_reduction: Reduction,
    discriminator_reduction: Reduction,
    weight: float = 1.0,
) -> list[Segment]:
    """:func:`feature_matching_loss` as segments."""
    check_choice("criterion", criterion, tuple(CRITERIA))
    check_choice("layer_reduction", layer_reduction, REDUCTIONS)
    check_choice("discriminator_reduction", discriminator_reduction, REDUCTIONS)
    reals = _by_discriminator("real_features", real_features)
    fakes = _by_discriminator("fake_features", fake_features)
    _check_alike(reals, fakes)
    if detach_real:
        _refuse_swapped(reals, fakes)

    term = CRITERIA[criterion]
    factor = weight / len(reals) if discriminator_reduction == "mean" else weight
    segments = []
    for d, (real_maps, fake_maps) in enumerate(zip(reals, fakes)):
        if not include_last:
            real_maps, fake_maps = real_maps[:-1], fake_maps[:-1]
        if not real_maps:
            raise ValueError(
                f"real_features: discriminator {d} has no feature map left without its last."
            )
        scale = factor / len(real_maps) if layer_reduction == "mean" else factor
        for r, f in zip(real_maps, fake_maps):
            segments.append(Segment(f, term, scale, r.detach() if detach_real else r))
    return segments


def feature_matching_loss(
    real_features: Features,
    fake_features: Features,
    *,
    criterion: Literal["l1", "mse"] = "l1",
    detach_real: bool = True,
    include_last: bool = True,
    layer_reduction: Reduction = "sum",
    discriminator_reduction: Reduction = "sum",
    weight: Weight = 1.0,
) -> Tensor:
    """Distance between a discriminator's feature maps on real and fake samples, in one call.

    .. math:: weight \\cdot \\sum_d \\sum_l E[|R_{dl} - F_{dl}|]

    (Salimans et al., 2016; Wang et al., 2018; Kong et al., 2020). Codebases differ in the factors:
    HiFi-GAN is ``weight=2``, both sums; pix2pixHD is ``include_last=False,
    layer_reduction="mean", discriminator_reduction="mean", weight=40`` (10, times 4 over the number
    of maps). The weight belongs in the call: a factor behind it costs another pass over all maps.

    Args:
        real_features: feature maps on real samples, the first argument: one sequence of
            tensors, or one sequence for each discriminator. Any shapes and floating dtypes.
        fake_features: feature maps on generated samples, alike in structure, shape and dtype.
        criterion: ``"l1"`` for the mean absolute difference, ``"mse"`` for the squared one.
        detach_real: let no gradient into the real maps. The generator needs none there; with
            it, autograd skips the discriminator's pass on real samples.
        include_last: whether the last map of every discriminator, usually its logits, counts.
        layer_reduction: ``"sum"`` or ``"mean"`` over the maps of a discriminator.
        discriminator_reduction: ``"sum"`` or ``"mean"`` over discriminators.
        weight: factor of the result; a number or a 0-d tensor.

    Returns:
        0-d tensor, float32 (float64 if a map is float64).

    Raises:
        ValueError: if the two are not alike, no map is left, or with ``detach_real`` the real
            maps require grad while no generated one does: then the two were swapped.
        TypeError: if a map is not a floating-point tensor.
    """
    weight = check_weight("weight", weight)
    segments = matching_segments(
        real_features,
        fake_features,
        criterion,
        detach_real,
        include_last,
        layer_reduction,
        discriminator_reduction,
        number_of(weight),
    )
    return weighted(weight, ops.multi_tensor_loss(segments).total)
