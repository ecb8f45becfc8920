"""The mean logit over the last samples, for relativistic losses with small batches."""

from __future__ import annotations

import torch
from torch import Tensor

from ganloss_fast.checks import check_integer, check_same_device, check_tensor


class PooledMean(torch.nn.Module):
    """The mean of the logits of the last ``size`` samples, this batch among them.

    With batches of one or a few images, the mean that an average relativistic loss compares with
    is noise. mmagic (DeblurGAN-v2) takes it over a pool of the last 50 predictions, detached::

        real_mean, fake_mean = gf.PooledMean(50), gf.PooledMean(50)
        loss = gf.discriminator_loss(
            real - fake_mean(fake), fake - real_mean(real), gf.LeastSquares(1.0, -1.0)
        )

    Called with logits [B, ...], it returns a 0-d tensor without a gradient. In ``eval()`` mode
    the pool stands still. It stays on the device; it is not saved.

    Args:
        size: samples in the pool.

    Raises:
        ValueError: if the logits have no batch, or the pool is asked while it is empty.
        TypeError: if the logits are not a floating-point tensor.
    """

    pool: Tensor

    def __init__(self, size: int = 50) -> None:
        super().__init__()
        self.size = check_integer("size", size)
        self.register_buffer("pool", torch.empty(0, dtype=torch.float32), persistent=False)

    def forward(self, logits: Tensor) -> Tensor:
        if check_tensor("logits", logits).dim() == 0 or logits.numel() == 0:
            raise ValueError(f"logits: expected a batch of logits, got {list(logits.shape)}.")
        check_same_device("logits", logits, "the pool", self.pool)
        if self.training:
            means = logits.detach().to(self.pool.dtype).flatten(1 if logits.dim() > 1 else 0)
            means = means.mean(1) if logits.dim() > 1 else means  # [B]
            self.pool = torch.cat([self.pool, means])[-self.size :]
        elif self.pool.numel() == 0:
            raise ValueError("logits: the pool is empty; call it in training mode first.")
        return self.pool.mean()

    def extra_repr(self) -> str:
        return f"size={self.size}"
