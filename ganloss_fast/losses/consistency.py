"""Consistency: a critic should judge a sample as it judges a changed copy of it."""

from __future__ import annotations

from torch import Tensor

from ganloss_fast import ops
from ganloss_fast.checks import Logits, Weight, check_weight
from ganloss_fast.losses.composite.term import distance_segment, pairs_of
from ganloss_fast.losses.reductions import number_of, total_of, weighted
from ganloss_fast.ops import terms
from ganloss_fast.ops.terms import Segment


def _squares(names: tuple[str, str], output: object, other: object, scale: float) -> list[Segment]:
    pairs = pairs_of(names[0], output, names[1], other)
    return [distance_segment(*pair, terms.squared(0.0), scale, False) for pair in pairs]


def consistency_loss(logits: Logits, changed_logits: Logits, *, weight: Weight = 10.0) -> Tensor:
    """Consistency regularisation, CR (Zhang et al., 2020), as StudioGAN computes it.

    .. math:: w \\, E[(D(x) - D(T(x)))^2]

    ::

        logits = critic(real)
        loss = loss + gf.consistency_loss(logits, critic(augment(real)))

    With ``critic(generator(z + noise))`` on generated samples it is the discriminator's half of
    zCR (``weight=20``); :func:`balanced_consistency_loss` is bCR. The gradient flows to both sides.

    Args:
        logits: on samples: a tensor of any shape, or a sequence of tensors (logits and
            embeddings, or one for each discriminator output), which add up.
        changed_logits: on their changed copies, alike.
        weight: factor of the result; a number or a 0-d tensor.

    Returns:
        0-d tensor, float32 (float64 if any logits are float64).

    Raises:
        ValueError: if the two are not alike in number, shape and device.
        TypeError: if logits are not floating-point tensors.
    """
    weight = check_weight("weight", weight)
    names = "logits", "changed_logits"
    segments = _squares(names, logits, changed_logits, number_of(weight))
    return weighted(weight, ops.multi_tensor_loss(segments).total)


def balanced_consistency_loss(
    real: Logits,
    changed_real: Logits,
    fake: Logits,
    changed_fake: Logits,
    *,
    real_weight: Weight = 10.0,
    fake_weight: Weight = 10.0,
) -> Tensor:
    """Balanced consistency regularisation, bCR (Zhao et al., 2021): both sides, in one call.

    .. math:: w_r \\, E[(D(x) - D(T(x)))^2] + w_f \\, E[(D(G(z)) - D(T(G(z))))^2]

    Args:
        real: logits on real samples; see :func:`consistency_loss`, also for the others.
        changed_real: on their augmented copies.
        fake: logits on generated samples.
        changed_fake: on their augmented copies.
        real_weight: factor of the real side; a number or a 0-d tensor.
        fake_weight: factor of the fake side.
    """
    weights = {
        "real": check_weight("real_weight", real_weight),
        "fake": check_weight("fake_weight", fake_weight),
    }
    scales = {name: number_of(weight) for name, weight in weights.items()}
    sides = {
        "real": _squares(("real", "changed_real"), real, changed_real, scales["real"]),
        "fake": _squares(("fake", "changed_fake"), fake, changed_fake, scales["fake"]),
    }
    return total_of(sides, weights)


def latent_diversity_loss(
    images: Tensor, changed_images: Tensor, *, weight: Weight = 0.5
) -> Tensor:
    """The generator's half of zCR (Zhao et al., 2021): near latents should give different images.

    .. math:: -w \\, E[(G(z) - G(z + \\epsilon))^2]

    The discriminator's half is ``consistency_loss(critic(images), critic(changed_images),
    weight=20)``. The gradient flows to both.

    Args:
        images: generated from latents.
        changed_images: generated from the same latents with some noise.
        weight: factor; a number or a 0-d tensor.
    """
    weight = check_weight("weight", weight)
    names = "images", "changed_images"
    segments = _squares(names, images, changed_images, -number_of(weight))
    total = ops.multi_tensor_loss(segments).total
    return weighted(weight, total)
