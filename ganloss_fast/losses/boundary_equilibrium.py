"""BEGAN: a discriminator that reconstructs, and the balance between both sides' errors."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ganloss_fast import ops
from ganloss_fast.checks import Logits, as_outputs, check_number, check_same_device
from ganloss_fast.losses.float32_state import Float32State
from ganloss_fast.ops import terms
from ganloss_fast.ops.terms import Segment


class BoundaryEquilibriumStep(NamedTuple):
    """What a discriminator step of BEGAN gives; all on the device."""

    loss: Tensor  # [], L_r - k L_f, with k as it was before this step
    real: Tensor  # [], L_r
    fake: Tensor  # [], L_f
    convergence: Tensor  # [], M = L_r + |gamma L_r - L_f|, detached


class BoundaryEquilibrium(Float32State):
    """The discriminator loss of BEGAN (Berthelot et al., 2017), with its balance on the device.

    .. math:: L_D = L_r - k L_f, \\qquad k \\leftarrow clip(k + \\lambda (\\gamma L_r - L_f), 0, 1)

    ``L_r`` and ``L_f`` are the means of the scores of an auto-encoder, ``|x - D(x)|``. The
    generator's loss is ``L_f`` of its own batch, ``scores.mean()``. torchgan and PyTorch-GAN
    compute the same with a Python number, and wait for the device once or twice a step.

    Called with (real_scores, fake_scores), it returns a :class:`BoundaryEquilibriumStep`, and
    moves ``k`` unless it is in ``eval()`` mode or a mean is not finite.

    Args:
        gamma: the ratio of both errors that is asked for, the paper's diversity.
        learning_rate: ``lambda``, of the balance.
        start_value: of ``k``, in [0, 1].

    Its buffer ``k`` [] stays float32, whatever the module is cast to.

    Raises:
        ValueError, TypeError: when it is made, if an option is no number in its range; when it is
            called, if scores are not floating-point tensors on one device.
    """

    k: Tensor

    def __init__(
        self, *, gamma: float = 0.75, learning_rate: float = 0.001, start_value: float = 0.0
    ) -> None:
        super().__init__()
        self.gamma = check_number("gamma", gamma)
        self.learning_rate = check_number("learning_rate", learning_rate)
        start_value = check_number("start_value", start_value)
        if not 0.0 <= start_value <= 1.0:
            raise ValueError(f"start_value: expected a number in [0, 1], got {start_value}.")
        self.register_buffer("k", torch.tensor(start_value, dtype=torch.float32))

    def forward(self, real_scores: Logits, fake_scores: Logits) -> BoundaryEquilibriumStep:
        reals = as_outputs("real_scores", real_scores)
        fakes = as_outputs("fake_scores", fake_scores)
        check_same_device("fake_scores", fakes[0], "real_scores", reals[0])
        check_same_device("real_scores", reals[0], "k", self.k)
        means = ops.multi_tensor_loss([Segment(t, terms.LINEAR) for t in reals + fakes]).values
        real, fake = means[: len(reals)].sum(), means[len(reals) :].sum()
        k = self.k.to(means.dtype)
        k = k.clone() if k is self.k else k  # which moves in place, ahead of the backward
        step = self.gamma * real.detach() - fake.detach()
        if self.training:
            # One batch that overflowed would otherwise be in the balance for good.
            move = (self.learning_rate * step).nan_to_num(0.0, 0.0, 0.0)
            self.k.add_(move).clamp_(0.0, 1.0)
        return BoundaryEquilibriumStep(real - k * fake, real, fake, real.detach() + step.abs())

    def extra_repr(self) -> str:
        return f"gamma={self.gamma}, learning_rate={self.learning_rate}"
