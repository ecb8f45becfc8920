"""The parts of a loss and the statistics of its logits, from one call of the op."""

from __future__ import annotations

from itertools import chain
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ganloss_fast import ops
from ganloss_fast.checks import Weight
from ganloss_fast.terms import Segment

Reduction = Literal["sum", "mean"]
REDUCTIONS = ("sum", "mean")


class LogitStatistics(NamedTuple):
    """Detached statistics of the logits of each of K outputs, on their device."""

    mean: Tensor  # [K]
    standard_deviation: Tensor  # [K], of the population
    sign: Tensor  # [K], mean of sign(logit): what adaptive augmentation steers by
    nonfinite: Tensor  # [K], number of NaN and infinite logits


class LossStatistics(NamedTuple):
    """Statistics of the logits, None for a side that the loss did not see."""

    real: LogitStatistics | None
    fake: LogitStatistics | None


class LossDetails(NamedTuple):
    """A loss and its parts over K outputs. All but ``stats`` are differentiable.

    ``real`` and ``fake`` are the unweighted terms; they are None where a loss has no separate
    term for that side (a paired relativistic loss, the real side of most generator losses).
    """

    total: Tensor  # []
    real: Tensor | None  # [K]
    fake: Tensor | None  # [K]
    per_output: Tensor  # [K], weighted; total is their sum or mean
    stats: LossStatistics


Sides = dict[str, list[Segment]]
"""The segments of each side of a loss, output by output, as many for every output."""


def flatten(sides: Sides) -> list[Segment]:
    return list(chain.from_iterable(sides.values()))


def _side_terms(segments: list[Segment], values: Tensor, outputs: int) -> Tensor:
    """[K]: the term of every output from the values of one side's segments."""
    per_output = len(segments) // outputs
    columns = values.view(outputs, per_output).unbind(1)
    scaled = [segment.scale * column for segment, column in zip(segments, columns)]
    return scaled[0] if per_output == 1 else torch.stack(scaled).sum(0)


def _side_statistics(rows: Tensor, outputs: int) -> LogitStatistics:
    """The first segment of every output sees its logits."""
    return LogitStatistics(*rows[:: len(rows) // outputs].unbind(1))


def loss_details(
    sides: Sides, outputs: int, weights: dict[str, Weight], reduction: Reduction
) -> LossDetails:
    """Computes all sides in one call and puts the parts together.

    ``sides`` may hold "real", "fake" and "paired" (one term for both) and, with scale 0,
    "real_logits" and "fake_logits", which are there for their statistics only.
    """
    computed = ops.multi_tensor_loss(flatten(sides), with_statistics=True)
    parts: dict[str, Tensor] = {}
    statistics: dict[str, LogitStatistics] = {}
    first = 0
    for name, segments in sides.items():
        last = first + len(segments)
        statistics[name] = _side_statistics(computed.statistics[first:last], outputs)
        if not name.endswith("_logits"):
            parts[name] = _side_terms(segments, computed.values[first:last], outputs)
        first = last
    weighted = [weights.get(name, 1.0) * part for name, part in parts.items()]
    per_output = weighted[0] if len(weighted) == 1 else weighted[0] + weighted[1]
    return LossDetails(
        total=per_output.sum() if reduction == "sum" else per_output.mean(),
        real=parts.get("real"),
        fake=parts.get("fake"),
        per_output=per_output,
        stats=LossStatistics(
            real=statistics.get("real", statistics.get("real_logits")),
            fake=statistics.get("fake", statistics.get("fake_logits")),
        ),
    )
