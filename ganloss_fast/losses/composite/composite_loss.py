"""composite_loss: the weighted sum of a generator's terms, in one call of the op."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ganloss_fast import ops
from ganloss_fast.checks import Weight, check_same_device, check_tensor, describe, scaled
from ganloss_fast.losses.composite.term import LossTerm
from ganloss_fast.losses.details import when_read
from ganloss_fast.ops import terms as op_terms
from ganloss_fast.ops.terms import Segment


class _Part(NamedTuple):
    """One term's share of what the op computed."""

    first: int  # position of its first segment in the call
    scales: list[float]  # of its segments, for a weight of 1
    weight: Weight

    def value(self, means: Tensor) -> Tensor:
        """The weighted term, from the means [S] of all segments."""
        own = means[self.first : self.first + len(self.scales)].unbind()
        summands = [scale * mean for scale, mean in zip(self.scales, own)]
        return scaled(self.weight, sum(summands[1:], summands[0]))


class CompositeLoss:
    """A loss and its terms. Nothing is copied to the host before you read it there.

    Attributes:
        total: [], the sum of all terms: what to call ``backward`` on.
        names: of the terms, in their order.
        values: [T], the weighted terms, detached: ``dict(zip(loss.names, loss.values.tolist()))``
            is a log line with one transfer.
        parts: the same as a dict of 0-d tensors by name.
    """

    def __init__(self, total: Tensor, means: Tensor, parts: dict[str, _Part]) -> None:
        self.total = total
        self.names = tuple(parts)
        self._means = means
        self._parts = parts

    @when_read
    def values(self) -> Tensor:
        return torch.stack([part.value(self._means).detach() for part in self._parts.values()])

    @when_read
    def parts(self) -> dict[str, Tensor]:
        return dict(zip(self.names, self.values.unbind()))

    def __repr__(self) -> str:
        return f"CompositeLoss(total={self.total!r}, names={self.names})"


def _segments(name: str, term: object) -> list[Segment]:
    if isinstance(term, LossTerm):
        try:
            return term.segments()
        except (TypeError, ValueError) as error:  # says which argument, not yet of which term
            raise type(error)(f"{name}: {error}") from error
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
            together. The message names the term and its argument.
        TypeError: if a term is none.
    """
    if not terms:
        raise ValueError("terms: expected at least one, such as pixels=L1(output, target).")
    parts: dict[str, _Part] = {}
    call: list[Segment] = []
    for name, term in terms.items():
        own = _segments(name, term)
        part = _Part(len(call), [s.scale for s in own], getattr(term, "weight", 1.0))
        # A tensor multiplies the term behind the call, which leaves it out of its total.
        factor = 0.0 if isinstance(part.weight, Tensor) else part.weight
        call += own if factor == 1.0 else [s._replace(scale=factor * s.scale) for s in own]
        check_same_device(name, own[0].a, next(iter(terms)), call[0].a)
        parts[name] = part
    computed = ops.multi_tensor_loss(call)
    total = computed.total
    for part in parts.values():
        if isinstance(part.weight, Tensor):
            total = total + part.value(computed.values)
    return CompositeLoss(total, computed.values.detach(), parts)
