"""From gradients to a penalty: which norm, what is penalised, how it is averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ganloss_fast import ops
from ganloss_fast.checks import (
    Weight,
    check_same_device,
    check_tensor,
    check_weight,
    describe,
    savable,
    scaled,
)
from ganloss_fast.ops.terms import compute_dtype
from ganloss_fast.penalties.table import NormPenalty

Mask = Tensor | Sequence[Tensor | None] | None


# eq=False: Dynamo before 2.13 hashes a callable object while it has no fields yet.
@dataclass(frozen=True, eq=False)
class PenaltyCall:
    """A penalty with everything about the call but its gradients: a weight of this step's own, and
    masks."""

    penalty: NormPenalty
    weight: Weight
    mask: Mask = None

    def __post_init__(self) -> None:
        check_weight("weight", self.weight)
        for mask in self._masks():
            if mask is not None and not (isinstance(mask, Tensor) and mask.dtype == torch.bool):
                check_tensor("mask", mask)
        if self.penalty.normalize_by_mask and not isinstance(self.mask, Tensor):
            raise ValueError("normalize_by_mask: expected a mask, one tensor, to normalise by.")

    def __call__(self, gradients: Sequence[Tensor]) -> Tensor:
        """The penalty of the gradients of one or several inputs, each [B, ...]."""
        if self.mask is not None:
            masks = self._expanded_masks(gradients)
            gradients = [
                g if m is None else g * savable(m).to(g.dtype) for g, m in zip(gradients, masks)
            ]
        asked = self.penalty
        is_plain = asked.eps == 0 and asked.power == 2 and asked.norm != "channel"
        if is_plain and asked.reduction in ("mean", "sum"):
            penalty = self._fused(gradients)
        else:
            penalty = self._composed(gradients)
        if asked.normalize_by_mask:
            assert isinstance(self.mask, Tensor)
            penalty = penalty / self.mask.to(penalty.dtype).mean()
        return penalty

    def of_slice(self, points: Sequence[Tensor], part: slice) -> PenaltyCall:
        """The same for a slice of the samples ``points``; its mask is sliced, not normalised."""
        if self.mask is None:
            return self
        masks = [m if m is None else m[part] for m in self._expanded_masks(points)]
        weight = self.weight
        if self.penalty.normalize_by_mask:
            assert isinstance(self.mask, Tensor)
            weight = weight / self.mask.to(compute_dtype(points[0].dtype)).mean()
        return PenaltyCall(replace(self.penalty, normalize_by_mask=False), weight, masks)

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
        if self.penalty.norm == "batch":
            return torch.cat([gradient.reshape(1, -1) for gradient in gradients], 1)
        if len(gradients) == 1:
            return gradients[0]
        return torch.cat([gradient.reshape(gradient.shape[0], -1) for gradient in gradients], 1)

    def _fused(self, gradients: Sequence[Tensor]) -> Tensor:
        rows = self._rows(gradients)
        mode = "one_sided" if self.penalty.one_sided else "two_sided"
        scale = 1.0 if isinstance(self.weight, Tensor) else float(self.weight)
        penalty = ops.norm_penalty(rows, mode, float(self.penalty.target), scale)[0]
        if isinstance(self.weight, Tensor):
            penalty = scaled(self.weight, penalty)
        return penalty * rows.shape[0] if self.penalty.reduction == "sum" else penalty

    def _composed(self, gradients: Sequence[Tensor]) -> Tensor:
        """The rare variants, out of plain operations."""
        asked = self.penalty
        excess = self._norms(gradients) - asked.target
        if asked.one_sided:
            excess = torch.where(excess <= 0, 0.0, excess)
        values = excess.square() if asked.power == 2 else excess.abs().pow(asked.power)
        if asked.reduction == "mean":
            values = values.mean()
        elif asked.reduction == "sum":
            values = values.sum()
        elif asked.reduction == "max":
            values = values.amax()
        elif asked.norm == "batch":
            values = values.reshape(())
        return scaled(self.weight, values)

    def _norms(self, gradients: Sequence[Tensor]) -> Tensor:
        asked = self.penalty
        rows = self._rows(gradients) if asked.norm != "channel" else gradients[0]
        rows = rows.to(compute_dtype(rows.dtype))
        if asked.norm == "channel":
            if len(gradients) > 1:
                raise ValueError('norm: "channel" is for a critic with one input.')
            if rows.dim() < 2:
                raise ValueError('norm: "channel" needs samples of shape [B, C, ...].')
            over: tuple[int, ...] = (1,)
        else:
            over = tuple(range(1, rows.dim()))
        if asked.eps_at == "gradient" and asked.eps > 0:
            rows = rows + asked.eps
        squares = rows.square()
        squared_norms = squares.sum(over) if over else squares
        if asked.eps_at == "root" and asked.eps > 0:
            return (squared_norms + asked.eps).sqrt()
        # sqrt has an infinite slope at 0: the gradient there is taken as 0, as torch.norm does.
        is_zero = squared_norms == 0
        return torch.where(is_zero, 0.0, torch.where(is_zero, 1.0, squared_norms).sqrt())


def penalty_call(penalty: NormPenalty, weight: Weight | None, mask: Mask) -> PenaltyCall:
    """The arguments of a public function, checked; without a weight the penalty's own counts."""
    return PenaltyCall(penalty, penalty.weight if weight is None else weight, mask)


def _expanded(mask: Tensor, sample: Tensor) -> Tensor:
    check_same_device("mask", mask, "the samples", sample)
    try:
        return mask.expand(sample.shape)
    except RuntimeError:
        raise ValueError(
            f"mask: expected a shape that broadcasts to the samples, {list(sample.shape)}, got "
            f"{list(mask.shape)}."
        ) from None
