"""composite_loss: the weighted sum of a generator's terms, in one call of the op."""

from __future__ import annotations

import torch
from torch import Tensor

from ganloss_fast import ops
from ganloss_fast.checks import Weight, check_same_device, check_tensor, describe, scaled
from ganloss_fast.losses.composite.term import LossTerm
from ganloss_fast.losses.details import when_read
from ganloss_fast.losses.reductions import number_of
from ganloss_fast.ops import terms as op_terms
from ganloss_fast.ops.terms import LossOutputs, Segment


class CompositeLoss:
    """A loss and its terms. Nothing is copied to the host before you read it there.

    Attributes:
        total: [], the sum of all terms: what to call ``backward`` on.
        names: of the terms, in their order.
        values: [T], the weighted terms, detached: ``dict(zip(loss.names, loss.values.tolist()))``
            is a log line with one transfer.
        parts: the same as a dict of 0-d tensors by name.
    """

    def __init__(
        self,
        total: Tensor,
        computed: LossOutputs,
        segments: dict[str, list[Segment]],
        weights: dict[str, Weight],
    ) -> None:
        self.total = total
        self.names = tuple(segments)
        self._computed = computed
        self._scales = {name: [s.scale for s in own] for name, own in segments.items()}
        self._weights = weights

    @when_read
    def values(self) -> Tensor:
        return torch.stack(
            [
                scaled(self._weights[name], value).detach()
                for name, value in _unweighted(self._computed.values.detach(), self._scales).items()
            ]
        )

    @when_read
    def parts(self) -> dict[str, Tensor]:
        return dict(zip(self.names, self.values.unbind()))

    def __repr__(self) -> str:
        return f"CompositeLoss(total={self.total!r}, names={self.names})"


def _unweighted(means: Tensor, scales: dict[str, list[float]]) -> dict[str, Tensor]:
    """Every term for a weight of 1, from the means [S] of all segments."""
    found, first = {}, 0
    for name, own in scales.items():
        parts = [scale * mean for scale, mean in zip(own, means[first : first + len(own)])]
        found[name] = sum(parts[1:], parts[0])
        first += len(own)
    return found


def _segments(name: str, term: object) -> list[Segment]:
    if isinstance(term, LossTerm):
        return term.segments()
    if isinstance(term, type) and issubclass(term, LossTerm):
        raise TypeError(f"{name}: expected a term such as L1(output, target), got the class.")
    if not isinstance(term, Tensor):
        raise TypeError(
            f"{name}: expected a term such as L1(output, target), or a 0-d tensor, got "
            f"{describe(term)}."
        )
    if check_tensor(name, term).dim() != 0:
        raise ValueError(
            f"{name}: expected a term such as L1(output, target), or a loss that is a 0-d tensor, "
            f"got {describe(term)}."
        )
    return [Segment(term, op_terms.LINEAR)]


def composite_loss(**terms: LossTerm | Tensor) -> CompositeLoss:
    """The weighted sum of a generator's terms; all that is pointwise in one call of one kernel.

    ::

        loss = gf.composite_loss(
            adversarial=gf.Adversarial(critic(output), "hinge"),
            pixels=gf.L1(output, target, weight=100.0),
            style=gf.Gram(output_features, target_features, weight=250.0),
        )
        loss.total.backward()

    A weight that is a number costs nothing: neither a pass over the data nor one over its
    gradient. A weight that is a tensor multiplies its term's value.

    Args:
        terms: by the names that they get in :attr:`CompositeLoss.parts`: :class:`Adversarial`,
            :class:`L1`, :class:`MSE`, :class:`FeatureMatching`, :class:`Perceptual`,
            :class:`Gram`, or a 0-d tensor, a loss of your own with its weight in it.

    Returns:
        :class:`CompositeLoss`; its ``total`` is float32 (float64 if any tensor is float64).

    Raises:
        ValueError: if there is no term, terms lie on different devices, or one does not fit
            together. The message names the argument of the term.
        TypeError: if a term is none.
    """
    if not terms:
        raise ValueError("terms: expected at least one, such as pixels=L1(output, target).")
    segments = {name: _segments(name, term) for name, term in terms.items()}
    weights = {name: getattr(term, "weight", 1.0) for name, term in terms.items()}
    weights = {name: 1.0 if isinstance(terms[name], Tensor) else w for name, w in weights.items()}
    first_name = next(iter(segments))
    call: list[Segment] = []
    for name, own in segments.items():
        check_same_device(name, own[0].a, first_name, segments[first_name][0].a)
        factor = 0.0 if isinstance(weights[name], Tensor) else number_of(weights[name])
        call += own if factor == 1.0 else [s._replace(scale=factor * s.scale) for s in own]
    computed = ops.multi_tensor_loss(call)
    total = computed.total
    if any(isinstance(weight, Tensor) for weight in weights.values()):
        scales = {name: [s.scale for s in own] for name, own in segments.items()}
        for name, value in _unweighted(computed.values, scales).items():
            if isinstance(weights[name], Tensor):
                total = total + scaled(weights[name], value)
    return CompositeLoss(total, computed, segments, weights)
