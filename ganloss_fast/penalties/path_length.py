"""Path length regularisation of a generator."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ganloss_fast.checks import (
    Weight,
    check_number,
    check_same_device,
    check_tensor,
    check_weight,
    scaled,
)
from ganloss_fast.penalties.critic.call import Differentiation, InvScale, as_logits, critic_call
from ganloss_fast.penalties.critic.gradient import gradients_of
from ganloss_fast.penalties.penalty_call import PenaltyCall
from ganloss_fast.penalties.table import NormPenalty

_UNRELATED = (
    "latents: the images were not computed from them. Pass the very tensor that went into the "
    "generator, not a copy or a view of it."
)
_NORMS = PenaltyCall(NormPenalty(power=1.0, reduction="none"), 1.0)


class PathLength(NamedTuple):
    """``penalty`` (0-d) to be added to the loss, the new ``mean`` (0-d, detached) to be passed
    next time, and the path ``lengths`` [B] (detached)."""

    penalty: Tensor
    mean: Tensor
    lengths: Tensor


def path_length_penalty(
    images: Tensor,
    latents: Tensor,
    mean: Tensor,
    *,
    weight: Weight = 2.0,
    decay: float = 0.01,
    noise: Tensor | None = None,
    rng: torch.Generator | None = None,
    inv_scale: InvScale = None,
    how: Differentiation | None = None,
) -> PathLength:
    """Path length regularisation (StyleGAN2; Karras et al., 2020).

    .. math:: weight \\cdot E_i[(l_i - a)^2], \\qquad
        l_i = \\sqrt{mean_{layer} \\|\\nabla_w \\langle images_i, y \\rangle\\|^2}

    with ``y ~ N(0, 1) / sqrt(H W)`` and ``a = mean + decay (E[l] - mean)``, through which the
    gradient flows too, as in the published code. Nothing waits for the device::

        mean = torch.zeros((), device=device)          # kept between steps, and saved
        result = path_length_penalty(images, latents, mean)
        loss, mean = loss + result.penalty, result.mean

    Code that keeps its own average of the lengths takes ``decay=0``: the penalty is then about
    ``mean`` as given, without a gradient through it, and ``result.lengths`` are there to update it.

    Args:
        images: generated images [B, C, H, W], with their graph.
        latents: what they were made from, [B, D] or [B, layers, D], requiring grad.
        mean: moving average of the lengths: a 0-d tensor. It is not changed in place.
        weight: a number or a 0-d tensor.
        decay: share of this batch in the average.
        noise: y, shaped like ``images`` and already divided; None draws it.
        rng: generator for that draw.
        inv_scale: see :func:`gradient_penalty`.
        how: see :class:`Differentiation`; without ``chunk_size``.

    Raises:
        ValueError: if shapes do not fit, or the images do not depend on the latents.
    """
    found = PathLengths(images, latents, mean, noise=noise, rng=rng, inv_scale=inv_scale, how=how)
    return found.about(found.average(decay), weight)


class PathLengths:
    """The path lengths of a batch with their graph: :func:`path_length_penalty` in two steps, for
    code that does something to the average between them."""

    def __init__(
        self,
        images: Tensor,
        latents: Tensor,
        mean: Tensor,
        *,
        noise: Tensor | None = None,
        rng: torch.Generator | None = None,
        inv_scale: InvScale = None,
        how: Differentiation | None = None,
    ) -> None:
        call = critic_call(as_logits, (), inv_scale, how)
        if call.how.chunk_size is not None:
            raise ValueError(
                "how: there is no chunk_size here, as the graph of all images exists already; take "
                "a smaller batch, as StyleGAN2 itself does."
            )
        _check_tensors(images, latents, mean)
        if noise is None:
            noise = _drawn(images, rng)
        elif noise.shape != images.shape:
            raise ValueError(
                f"noise: expected the shape of images, {list(images.shape)}, got "
                f"{list(noise.shape)}."
            )
        self._mean = mean
        self._result = gradients_of(call, [images * noise], [latents], unrelated=_UNRELATED)
        layers = latents.shape[1] if latents.dim() == 3 else 1
        self._lengths = _NORMS(self._result.gradients) / math.sqrt(layers)

    def average(self, decay: float) -> Tensor:
        """The moving average with this batch in it; a gradient flows through its share."""
        before = self._mean.detach().to(self._lengths.dtype)
        return torch.lerp(before, self._lengths.mean(), check_number("decay", decay))

    def about(self, average: Tensor, weight: Weight) -> PathLength:
        """The penalty on how far the lengths are from an average."""
        apart = (self._lengths - average).square().mean()
        penalty = self._result.signalled(scaled(check_weight("weight", weight), apart))
        return PathLength(penalty, average.detach().to(self._mean.dtype), self._lengths.detach())


def _drawn(images: Tensor, rng: torch.Generator | None) -> Tensor:
    noise = torch.randn(images.shape, generator=rng, device=images.device, dtype=images.dtype)
    return noise / math.sqrt(math.prod(images.shape[2:]))


def _check_tensors(images: Tensor, latents: Tensor, mean: Tensor) -> None:
    check_tensor("images", images)
    check_tensor("latents", latents)
    check_tensor("mean", mean)
    if images.dim() < 3:
        raise ValueError(f"images: expected shape [B, C, ...], got {list(images.shape)}.")
    if latents.dim() not in (2, 3) or latents.shape[0] != images.shape[0]:
        raise ValueError(
            f"latents: expected shape [{images.shape[0]}, D] or [{images.shape[0]}, layers, D], "
            f"got {list(latents.shape)}."
        )
    if images.numel() == 0:
        raise ValueError(f"images: expected at least one, got shape {list(images.shape)}.")
    if mean.dim() != 0:
        raise ValueError(f"mean: expected a 0-d tensor, got shape {list(mean.shape)}.")
    check_same_device("mean", mean, "images", images)
    if not latents.requires_grad:
        raise ValueError(
            "latents: they do not require grad, so the images have no gradient with respect to "
            "them. Call latents.requires_grad_() before the generator."
        )
    if not images.requires_grad:
        raise ValueError(
            "images: they have no graph; the generator ran under torch.no_grad(), or they were "
            "detached."
        )
