"""The terms that generators of images are trained with, each a value for one step."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Literal

from torch import Tensor

from ganloss_fast.checks import Logits, Weight, check_choice, check_flag
from ganloss_fast.losses import matching
from ganloss_fast.losses.adversarial import generator_logits
from ganloss_fast.losses.composite.gram import (
    NORMALIZATIONS,
    GramNormalization,
    check_maps,
    divisor,
    scaled_second_moment,
)
from ganloss_fast.losses.composite.term import (
    LayerWeights,
    LossTerm,
    Maps,
    as_compared,
    distance_segment,
    pairs_of,
    weighted_maps,
)
from ganloss_fast.losses.details import Reduction, flatten
from ganloss_fast.losses.masks import Mask, masked
from ganloss_fast.losses.matching import CRITERIA, Features
from ganloss_fast.losses.reductions import output_share
from ganloss_fast.losses.sides import generator_sides
from ganloss_fast.losses.table import LossLike, resolve_loss
from ganloss_fast.ops.terms import Segment, Term

Criterion = Literal["l1", "mse"]


@dataclass(frozen=True, eq=False)
class Adversarial(LossTerm):
    """The generator's adversarial loss: :func:`generator_loss` as a term.

    Args:
        fake: logits on generated samples: a tensor, or a sequence of tensors.
        loss: as in :func:`generator_loss`.
        weight: factor of the term; a number or a 0-d tensor.
        real: logits on real samples, for relativistic losses and only for them.
        output_reduction: ``"sum"`` or ``"mean"`` over outputs.
    """

    fake: Logits
    loss: LossLike
    weight: Weight = 1.0
    _: KW_ONLY
    real: Logits | None = None
    output_reduction: Reduction = "sum"

    def segments(self) -> list[Segment]:
        self._check_weight()
        loss = resolve_loss(self.loss)
        fakes, reals = generator_logits(self.fake, self.real, loss)
        share = output_share(self.output_reduction, len(fakes))
        return flatten(generator_sides(fakes, reals, loss, None, share))


@dataclass(frozen=True, eq=False)
class _Distance(LossTerm):
    term: ClassVar[Term]

    output: Logits
    target: Logits
    weight: Weight = 1.0
    _: KW_ONLY
    mask: Mask = None
    normalize_by_mask: bool = False
    detach_target: bool = True

    def segments(self) -> list[Segment]:
        self._check_weight()
        check_flag("detach_target", self.detach_target)
        if check_flag("normalize_by_mask", self.normalize_by_mask) and self.mask is None:
            raise ValueError("normalize_by_mask: there is no mask to normalise by; leave it out.")
        pairs = pairs_of("output", self.output, "target", self.target)
        segments = [distance_segment(*pair, self.term, 1.0, self.detach_target) for pair in pairs]
        return masked("mask", self.mask, segments, len(segments), self.normalize_by_mask)


@dataclass(frozen=True, eq=False)
class L1(_Distance):
    """Mean absolute difference: pixels (pix2pix), cycles and identity (CycleGAN).

    .. math:: w \\sum_k E[m_k |x_k - y_k|]

    Args:
        output: what was generated: a tensor of any shape, or a sequence of tensors, whose values
            add up, such as the cycles of both directions.
        target: what it should be, alike in shape.
        weight: factor of the term; a number or a 0-d tensor.
        mask: weights of the elements, as ``real_mask`` in :func:`discriminator_loss`.
        normalize_by_mask: divide by the mean of the mask.
        detach_target: let no gradient into the target.
    """

    term: ClassVar[Term] = CRITERIA["l1"]


@dataclass(frozen=True, eq=False)
class MSE(_Distance):
    """Mean squared difference; otherwise as :class:`L1`.

    .. math:: w \\sum_k E[m_k (x_k - y_k)^2]
    """

    term: ClassVar[Term] = CRITERIA["mse"]


@dataclass(frozen=True, eq=False)
class FeatureMatching(LossTerm):
    """:func:`feature_matching_loss` as a term, with its arguments.

    Args:
        real_features: a discriminator's feature maps on real samples, the first argument.
        fake_features: those on generated samples.
        weight: factor of the term; a number or a 0-d tensor.
        criterion: ``"l1"`` or ``"mse"``; for this and the others see
            :func:`feature_matching_loss`.
    """

    real_features: Features
    fake_features: Features
    weight: Weight = 1.0
    _: KW_ONLY
    criterion: Criterion = "l1"
    detach_real: bool = True
    include_last: bool = True
    layer_reduction: Reduction = "sum"
    discriminator_reduction: Reduction = "sum"

    def segments(self) -> list[Segment]:
        self._check_weight()
        return matching.matching_segments(
            self.real_features,
            self.fake_features,
            self.criterion,
            self.detach_real,
            self.include_last,
            self.layer_reduction,
            self.discriminator_reduction,
        )


@dataclass(frozen=True, eq=False)
class Perceptual(LossTerm):
    """Distance between the feature maps of a fixed network (Johnson et al., 2016).

    .. math:: w \\sum_l w_l \\, E[|\\phi_l(x) - \\phi_l(y)|]

    :class:`PerceptualFeatures` gets both sides from a network.

    Args:
        output_features: feature maps of what was generated: a dict by layer, or a sequence.
        target_features: those of what it should be, alike in structure and shape.
        weight: factor of the term; a number or a 0-d tensor.
        layer_weights: ``w_l``: a dict by layer, which also says which layers count, or a
            sequence. None: 1 for every map.
        criterion: ``"l1"`` or ``"mse"``.
        detach_target: let no gradient into the target's maps.
    """

    output_features: Maps
    target_features: Maps
    weight: Weight = 1.0
    _: KW_ONLY
    layer_weights: LayerWeights = None
    criterion: Criterion = "l1"
    detach_target: bool = True

    def _layers(self) -> list[tuple[Tensor, Tensor, float]]:
        self._check_weight()
        check_flag("detach_target", self.detach_target)
        check_choice("criterion", self.criterion, tuple(CRITERIA))
        return weighted_maps(self.output_features, self.target_features, self.layer_weights)

    def segments(self) -> list[Segment]:
        layers = self._layers()
        term = CRITERIA[self.criterion]
        return [
            distance_segment(output, target, term, weight, self.detach_target)
            for output, target, weight in layers
        ]


@dataclass(frozen=True, eq=False)
class Gram(Perceptual):
    """Distance between Gram matrices of feature maps: style, texture (Gatys et al., 2016).

    .. math:: w \\sum_l w_l \\, E[|G_l(x) - G_l(y)|], \\qquad G = \\frac{F F^T}{c h w}

    Args:
        output_features: as in :class:`Perceptual`, also for the others; maps [B, C, ...].
        normalization: what ``F F^T`` is divided by: ``"chw"`` as in BasicSR, mmagic and
            EdgeConnect, ``"hw"``, or ``"none"``.
    """

    _: KW_ONLY
    normalization: GramNormalization = "chw"

    def segments(self) -> list[Segment]:
        check_choice("normalization", self.normalization, NORMALIZATIONS)
        layers = self._layers()
        term = CRITERIA[self.criterion]
        power = 2 if self.criterion == "mse" else 1  # of a factor in the criterion's argument
        segments = []
        for output, target, weight in layers:
            by = divisor(check_maps("output_features", output), self.normalization)
            output, target = as_compared(output, target, self.detach_target)
            own, remaining = scaled_second_moment(output, by)
            other, _ = scaled_second_moment(target, by)
            segments.append(Segment(own, term, weight / remaining**power, other))
        return segments
