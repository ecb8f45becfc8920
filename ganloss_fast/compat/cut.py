"""CUT (taesungp/contrastive-unpaired-translation): ``models/networks.py``.

CycleGAN's criterion and penalty, with one mode more.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from ganloss_fast.compat import cyclegan
from ganloss_fast.compat._criteria import Mode, as_logits, check_mode
from ganloss_fast.compat.cyclegan import cal_gradient_penalty
from ganloss_fast.losses.table import BCE
from ganloss_fast.ops.multi_tensor_loss import multi_tensor_loss
from ganloss_fast.ops.terms import Segment, compute_dtype, softplus

__all__ = ["GANLoss", "cal_gradient_penalty"]


class GANLoss(cyclegan.GANLoss):
    """The criterion of CUT (Park et al., 2020): :class:`ganloss_fast.compat.cyclegan.GANLoss` with
    the mode ``"nonsaturating"``, whose loss is one value for each sample.

    .. math:: nonsaturating: E_i[\\log(1 + e^{\\mp D_i})]

    There is no older form of this one: it needs a mode.

    Args:
        gan_mode: ``"lsgan"``, ``"vanilla"``, ``"wgangp"`` or ``"nonsaturating"``.
        target_real_label: label of real samples, and of fake ones in the generator's loss.
        target_fake_label: label of fake samples.

    Returns:
        ``"nonsaturating"``: [B], the mean over the logits of each sample; its trainer takes the
        mean. The other modes: 0-d.

    Raises:
        ganloss_fast.compat.UnknownMode: for another mode.
    """

    MODES: ClassVar[dict[str, Mode]] = {
        **cyclegan.GANLoss.MODES,
        "nonsaturating": BCE(),
    }

    def __init__(
        self, gan_mode: str, target_real_label: float = 1.0, target_fake_label: float = 0.0
    ) -> None:
        check_mode("gan_mode", gan_mode, list(self.MODES))
        super().__init__(gan_mode, target_real_label, target_fake_label)

    def forward(self, prediction: Tensor, target_is_real: bool) -> Tensor:
        if self.gan_mode not in ("wgangp", "nonsaturating"):
            return super().forward(prediction, target_is_real)
        logits = as_logits("prediction", prediction)
        if self.gan_mode == "wgangp":  # one operation, and no slower under the trainer's own mean
            mean = logits.mean(dtype=compute_dtype(logits.dtype))
            return -mean if target_is_real else mean
        if logits.dim() == 0:
            raise ValueError("prediction: expected shape [B, ...], got a 0-d tensor.")
        return _sample_means(logits, bool(target_is_real))

    __call__ = forward


_LONG_ROW = 128  # elements, from which on a segment for each sample is faster than plain PyTorch


def _sample_means(logits: Tensor, target_is_real: bool) -> Tensor:
    """[B]: the mean softplus over the logits of each sample."""
    if math.prod(logits.shape[1:]) >= _LONG_ROW:
        term = softplus(-1.0 if target_is_real else 1.0)
        return multi_tensor_loss([Segment(row, term) for row in logits.unbind(0)]).values
    z = logits.to(compute_dtype(logits.dtype))
    # Above its threshold softplus is the identity; the default, 20, is too early for float64.
    elements = torch.nn.functional.softplus(-z if target_is_real else z, threshold=40)
    return elements.flatten(1).mean(1) if logits.dim() > 1 else elements
