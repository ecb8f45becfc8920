"""From gradients to a penalty: which norm, what is penalised, how it is averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ganloss_fast import ops
from ganloss_fast.checks import (
    Weight,
    check_choice,
    check_number_field,
    check_same_device,
    check_tensor,
    check_weight,
    describe,
    savable,
    scaled,
)
from ganloss_fast.ops.terms import compute_dtype

Norm = Literal["sample", "channel", "batch"]
EpsAt = Literal["root", "gradient"]
PenaltyReduction = Literal["mean", "sum", "max", "none"]
Mask = Tensor | Sequence[Tensor | None] | None


# eq=False: Dynamo before 2.13 hashes a callable object while it has no fields yet.
@dataclass(frozen=True, eq=False)
class NormPenalty:
    """What :func:`ganloss_fast.gradient_penalty` does with a gradient; its keywords, checked."""

    weight: Weight
    target: float
    one_sided: bool = False
    power: float = 2.0
    norm: Norm = "sample"
    eps: float = 0.0
    eps_at: EpsAt = "root"
    mask: Mask = None
    normalize_by_mask: bool = False
    reduction: PenaltyReduction = "mean"

    def __post_init__(self) -> None:
        if not isinstance(self.weight, Tensor):
            check_number_field(self, "weight")
        check_weight("weight", self.weight)
        check_number_field(self, "target")
        for name, value in (
            ("one_sided", self.one_sided),
            ("normalize_by_mask", self.normalize_by_mask),
        ):
            if not isinstance(value, bool):
                raise TypeError(f"{name}: expected True or False, got {describe(value)}.")
        check_choice("norm", self.norm, ("sample", "channel", "batch"))
        check_choice("eps_at", self.eps_at, ("root", "gradient"))
        check_choice("reduction", self.reduction, ("mean", "sum", "max", "none"))
        if check_number_field(self, "eps") < 0:
            raise ValueError(f"eps: expected a number >= 0, got {self.eps}.")
        if check_number_field(self, "power") <= 0:
            raise ValueError(f"power: expected a number > 0, got {self.power}.")
        for mask in self._masks():
            if mask is not None and not (isinstance(mask, Tensor) and mask.dtype == torch.bool):
                check_tensor("mask", mask)
        if self.normalize_by_mask and not isinstance(self.mask, Tensor):
            raise ValueError("normalize_by_mask: expected a mask, one tensor, to normalise by.")

    def __call__(self, gradients: Sequence[Tensor]) -> Tensor:
        """The penalty of the gradients of one or several inputs, each [B, ...]."""
        if self.mask is not None:
            masks = self._expanded_masks(gradients)
            gradients = [
                g if m is None else g * savable(m).to(g.dtype) for g, m in zip(gradients, masks)
            ]
        is_plain = self.eps == 0 and self.power == 2 and self.norm != "channel"
        if is_plain and self.reduction in ("mean", "sum"):
            penalty = self._fused(gradients)
        else:
            penalty = self._composed(gradients)
        if self.normalize_by_mask:
            assert isinstance(self.mask, Tensor)
            penalty = penalty / self.mask.to(penalty.dtype).mean()
        return penalty

    def of_slice(self, points: Sequence[Tensor], part: slice) -> NormPenalty:
        """The same for a slice of the samples ``points``; its mask is sliced, not normalised."""
        if self.mask is None:
            return self
        masks = [m if m is None else m[part] for m in self._expanded_masks(points)]
        weight = self.weight
        if self.normalize_by_mask:
            assert isinstance(self.mask, Tensor)
            weight = weight / self.mask.to(compute_dtype(points[0].dtype)).mean()
        return replace(self, mask=masks, normalize_by_mask=False, weight=weight)

    def _masks(self) -> Sequence[Tensor | None]:
        return self.mask if isinstance(self.mask, Sequence) else [self.mask]

    def _expanded_masks(self, samples: Sequence[Tensor]) -> list[Tensor | None]:
        """One mask for each input, in its shape."""
        masks = self._masks()
        if len(masks) != len(samples):
            raise ValueError(
                f"mask: expected one for each of the {len(samples)} inputs (None for no mask), "
                f"got {describe(self.mask)}."
            )
        return [
            None if mask is None else _expanded(mask, sample)
            for mask, sample in zip(masks, samples)
        ]

    def _rows(self, gradients: Sequence[Tensor]) -> Tensor:
        """[rows, ...]: one row for each norm."""
        if self.norm == "batch":
            return torch.cat([gradient.reshape(1, -1) for gradient in gradients], 1)
        if len(gradients) == 1:
            return gradients[0]
        return torch.cat([gradient.reshape(gradient.shape[0], -1) for gradient in gradients], 1)

    def _fused(self, gradients: Sequence[Tensor]) -> Tensor:
        rows = self._rows(gradients)
        mode = "one_sided" if self.one_sided else "two_sided"
        scale = 1.0 if isinstance(self.weight, Tensor) else float(self.weight)
        penalty = ops.norm_penalty(rows, mode, float(self.target), scale)[0]
        if isinstance(self.weight, Tensor):
            penalty = scaled(self.weight, penalty)
        return penalty * rows.shape[0] if self.reduction == "sum" else penalty

    def _composed(self, gradients: Sequence[Tensor]) -> Tensor:
        """The rare variants, out of plain operations."""
        excess = self._norms(gradients) - self.target
        if self.one_sided:
            excess = torch.where(excess <= 0, 0.0, excess)
        values = excess.square() if self.power == 2 else excess.abs().pow(self.power)
        if self.reduction == "mean":
            values = values.mean()
        elif self.reduction == "sum":
            values = values.sum()
        elif self.reduction == "max":
            values = values.amax()
        elif self.norm == "batch":
            values = values.reshape(())
        return scaled(self.weight, values)

    def _norms(self, gradients: Sequence[Tensor]) -> Tensor:
        rows = self._rows(gradients) if self.norm != "channel" else gradients[0]
        rows = rows.to(compute_dtype(rows.dtype))
        if self.norm == "channel":
            if len(gradients) > 1:
                raise ValueError('norm: "channel" is for a critic with one input.')
            if rows.dim() < 2:
                raise ValueError('norm: "channel" needs samples of shape [B, C, ...].')
            over: tuple[int, ...] = (1,)
        else:
            over = tuple(range(1, rows.dim()))
        if self.eps_at == "gradient" and self.eps > 0:
            rows = rows + self.eps
        squares = rows.square()
        squared_norms = squares.sum(over) if over else squares
        if self.eps_at == "root" and self.eps > 0:
            return (squared_norms + self.eps).sqrt()
        # sqrt has an infinite slope at 0: the gradient there is taken as 0, as torch.norm does.
        is_zero = squared_norms == 0
        return torch.where(is_zero, 0.0, torch.where(is_zero, 1.0, squared_norms).sqrt())


def _expanded(mask: Tensor, sample: Tensor) -> Tensor:
    check_same_device("mask", mask, "the samples", sample)
    try:
        return mask.expand(sample.shape)
    except RuntimeError:
        raise ValueError(
            f"mask: expected a shape that broadcasts to the samples, {list(sample.shape)}, got "
            f"{list(mask.shape)}."
        ) from None
