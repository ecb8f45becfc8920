"""The rules by which norms of gradients become weights of losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ganloss_fast.checks import Weight, check_choice, check_flag, check_number_field, scaled


class NormAverages(NamedTuple):
    """Moving averages of gradient norms, ``total / steps``, as they are kept between steps."""

    total: Tensor  # [L]
    steps: Tensor  # [L], decayed alike

    def updated(self, norms: Tensor, decay: float) -> NormAverages:
        """With the norms of one more step, but for those that are not finite: where a loss scale
        overflows the optimizer skips its step, and so does the average."""
        finite = norms.isfinite()
        return NormAverages(
            torch.where(finite, self.total * decay + norms, self.total),
            torch.where(finite, self.steps * decay + 1, self.steps),
        )

    def extended(self, count: int) -> NormAverages:
        """With as many more losses, of which nothing is known."""
        more = self.total.new_zeros(count)
        return NormAverages(torch.cat([self.total, more]), torch.cat([self.steps, more]))

    def means(self) -> Tensor:
        return self.total / self.steps


def _scaled_each(weights: Sequence[Weight], factors: Sequence[Tensor]) -> Tensor:
    """[L], of L weights and as many 0-d factors."""
    return torch.stack([scaled(weight, factor) for weight, factor in zip(weights, factors)])


@dataclass(frozen=True)
class AdaptiveWeight:
    """The adaptive weight of VQGAN (Esser et al., 2021): every loss as strong as the first.

    .. math:: \\lambda_0 = w_0, \\qquad
        \\lambda_k = w_k \\, clamp(\\|g_0\\| / (\\|g_k\\| + \\epsilon), 0, largest)

    So in taming-transformers, latent-diffusion, generative-models, LlamaGen and SEED-Voken.

    Args:
        largest: the bound of the ratio.
        epsilon: what keeps a vanishing gradient from dividing by 0.
        epsilon_as: ``"summand"``, or ``"floor"`` for ``max(norm, epsilon)`` (diffusers, with
            ``epsilon=1e-8``).
    """

    largest: float = 1e4
    epsilon: float = 1e-4
    epsilon_as: Literal["summand", "floor"] = "summand"

    def __post_init__(self) -> None:
        check_number_field(self, "largest")
        check_number_field(self, "epsilon")
        check_choice("epsilon_as", self.epsilon_as, ("summand", "floor"))

    def weigh(self, norms: Tensor, wanted: Sequence[Weight]) -> Tensor:
        """The weights [L] of losses whose gradients have these norms [L]."""
        if self.epsilon_as == "floor":
            below = norms.clamp(min=self.epsilon)
        else:
            below = norms + self.epsilon
        _, *ratios = (norms[0] / below).clamp(0.0, self.largest).unbind()
        return _scaled_each(wanted, [torch.ones_like(norms[0]), *ratios])


@dataclass(frozen=True)
class GradientShares:
    """The balancer of EnCodec (Defossez et al., 2022): each loss has its share of a total norm.

    .. math:: \\lambda_k = \\frac{w_k}{\\sum_j w_j} \\cdot
        \\frac{total\\ norm}{\\epsilon + average \\|g_k\\|}

    with moving averages that :func:`balanced_backward` takes and gives back.

    Args:
        total_norm: of the weighted gradients together, where they all point one way.
        decay: of the averages; with 1 they are means over all steps.
        per_sample: the norm of a gradient [B, ...] is the mean over the norms of its samples.
            Without ``last_layer`` only.
        epsilon: added to the averages.
        rescale: False: the weights are ``w`` as they are, and norms and averages for the log.
    """

    total_norm: float = 1.0
    decay: float = 0.999
    per_sample: bool = True
    epsilon: float = 1e-12
    rescale: bool = True

    def __post_init__(self) -> None:
        for name in ("total_norm", "decay", "epsilon"):
            check_number_field(self, name)
        check_flag("per_sample", self.per_sample)
        check_flag("rescale", self.rescale)

    def weigh(self, averages: Tensor, wanted: Sequence[Weight]) -> Tensor:
        """The weights [L] of losses whose gradients have these norms [L] on average."""
        if not self.rescale:
            return _scaled_each(wanted, torch.ones_like(averages).unbind())
        whole = sum(wanted)
        shares = [weight / whole for weight in wanted]
        return _scaled_each(shares, (self.total_norm / (self.epsilon + averages)).unbind())


Rule = AdaptiveWeight | GradientShares
