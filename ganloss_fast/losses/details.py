"""The parts of a loss and the statistics of its logits, from one call of the op."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from ganloss_fast import ops
from ganloss_fast.checks import Weight
from ganloss_fast.ops.dispatch import is_plain_eager
from ganloss_fast.ops.terms import LossOutputs, Segment, compute_dtype

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


Sides = dict[str, list[Segment]]
"""The segments of each side of a loss, output by output, as many for every output."""

LOGITS = "_logits"  # ends the name of a side that is there for its statistics only


def flatten(sides: Sides) -> list[Segment]:
    return list(chain.from_iterable(sides.values()))


class _Side(NamedTuple):
    """One side's share of what the op computed."""

    segments: list[Segment]  # as they were given, for a weight of 1
    first: int  # position of its first segment in the call
    weight: Weight

    def values(self, computed: LossOutputs, outputs: int) -> Tensor:
        """[K]: the unweighted term of every output."""
        last = self.first + len(self.segments)
        values = computed.values[self.first : last]
        per_output = len(self.segments) // outputs
        if per_output == 1:
            scale = self.segments[0].scale
            return values if scale == 1.0 else scale * values
        columns = values.view(outputs, per_output).unbind(1)
        scaled = [segment.scale * column for segment, column in zip(self.segments, columns)]
        return torch.stack(scaled).sum(0)

    def logits(self, outputs: int) -> list[Tensor]:
        """The first segment of every output sees its logits."""
        return [segment.a for segment in self.segments[:: len(self.segments) // outputs]]

    def statistics(self, computed: LossOutputs, outputs: int) -> LogitStatistics:
        last = self.first + len(self.segments)
        rows = computed.statistics[self.first : last : len(self.segments) // outputs]
        return LogitStatistics(*rows.unbind(1))


class _LogitMeans(torch.autograd.Function):
    """The means [K] of K tensors, already taken: a gradient for them without reading the data.

    Linear, so its backward is a few PyTorch ops that have every derivative there is.
    """

    @staticmethod
    def forward(ctx: Any, means: Tensor, *logits: Tensor) -> Tensor:
        ctx.kinds = [(t.shape, t.numel(), t.dtype) for t in logits]
        return means.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        gradients: list[Tensor | None] = [None] * len(ctx.kinds)
        for k, (shape, count, dtype) in enumerate(ctx.kinds):
            if ctx.needs_input_grad[1 + k]:
                gradients[k] = (g[k] / max(count, 1)).to(dtype).expand(shape)
        return None, *gradients


Part = TypeVar("Part")


class when_read(Generic[Part]):
    """functools.cached_property without its lock, which torch.compile cannot trace."""

    def __init__(self, compute: Callable[[Any], Part]) -> None:
        self.compute = compute
        self.name = compute.__name__

    def __get__(self, details: Any, owner: type | None = None) -> Part:
        part = self.compute(details)
        setattr(details, self.name, part)  # which stands before this from now on
        return part


class LossDetails:
    """A loss and its parts over K outputs. All but ``stats`` are differentiable.

    One call of the op computes it all; the parts are put together when they are read.

    Attributes:
        total: [], the loss.
        real: [K], the unweighted term of real logits; None where a loss has no separate term for
            that side (a paired relativistic loss, the real side of most generator losses).
        fake: [K], likewise of fake logits.
        per_output: [K], weighted; ``total`` is their sum or mean.
        real_mean: [K], the mean real logit of every output, for LeCam regularisation (Tseng et
            al., 2021) or drift; None for a side that the loss did not see.
        fake_mean: [K], likewise of fake logits.
        stats: :class:`LossStatistics`, detached: for logs and adaptive augmentation.
    """

    def __init__(
        self,
        computed: LossOutputs,
        sides: dict[str, _Side],
        outputs: int,
        reduction: Reduction,
    ) -> None:
        self._computed = computed
        self._sides = sides
        self._outputs = outputs
        self._reduction = reduction

    @when_read
    def total(self) -> Tensor:
        if not any(isinstance(side.weight, Tensor) for side in self._sides.values()):
            return self._computed.total
        return self.per_output.sum() if self._reduction == "sum" else self.per_output.mean()

    @when_read
    def real(self) -> Tensor | None:
        return self._values("real")

    @when_read
    def fake(self) -> Tensor | None:
        return self._values("fake")

    @when_read
    def per_output(self) -> Tensor:
        parts = [
            side.weight * side.values(self._computed, self._outputs)
            for name, side in self._sides.items()
            if not name.endswith(LOGITS)
        ]
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    @when_read
    def real_mean(self) -> Tensor | None:
        return self._mean("real")

    @when_read
    def fake_mean(self) -> Tensor | None:
        return self._mean("fake")

    @when_read
    def stats(self) -> LossStatistics:
        return LossStatistics(self._statistics("real"), self._statistics("fake"))

    def _values(self, name: str) -> Tensor | None:
        side = self._sides.get(name)
        return None if side is None else side.values(self._computed, self._outputs)

    def _side_of_logits(self, name: str) -> _Side | None:
        return self._sides.get(name, self._sides.get(name + LOGITS))

    def _statistics(self, name: str) -> LogitStatistics | None:
        side = self._side_of_logits(name)
        return None if side is None else side.statistics(self._computed, self._outputs)

    def _mean(self, name: str) -> Tensor | None:
        side = self._side_of_logits(name)
        if side is None:
            return None
        logits = side.logits(self._outputs)
        if is_plain_eager(logits[0]):
            means = side.statistics(self._computed, self._outputs).mean
            attached: Tensor = _LogitMeans.apply(means, *logits)
            return attached
        dtype = self._computed.total.dtype
        return torch.stack([t.to(compute_dtype(t.dtype)).mean().to(dtype) for t in logits])

    def __repr__(self) -> str:
        return f"LossDetails(total={self.total!r}, per_output={self.per_output!r})"


def _in_call(name: str, segments: list[Segment], weight: Weight, share: float) -> list[Segment]:
    """The segments of a side as they enter the total."""
    if name.endswith(LOGITS):
        return [segment._replace(a=segment.a.detach()) for segment in segments]
    factor = share if isinstance(weight, Tensor) else weight * share
    if factor == 1.0:
        return segments
    return [segment._replace(scale=factor * segment.scale) for segment in segments]


def loss_details(
    sides: Sides, outputs: int, weights: dict[str, Weight], reduction: Reduction
) -> LossDetails:
    """Computes all sides in one call.

    ``sides`` may hold "real", "fake" and "paired" (one term for both) and, with scale 0,
    "real_logits" and "fake_logits", which are there for their statistics only.
    """
    share = 1.0 if reduction == "sum" else 1.0 / outputs
    call: list[Segment] = []
    parts: dict[str, _Side] = {}
    for name, segments in sides.items():
        weight = weights.get(name, 1.0)
        parts[name] = _Side(segments, len(call), weight)
        call += _in_call(name, segments, weight, share)
    computed = ops.multi_tensor_loss(call, with_statistics=True)
    return LossDetails(computed, parts, outputs, reduction)
