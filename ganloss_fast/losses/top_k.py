"""Top-k training: a generator learns from its best samples."""

from __future__ import annotations

import math

from torch import Tensor

from ganloss_fast.checks import check_flag, check_integer, check_number, check_tensor


def top_k_logits(
    fake: Tensor, k: float, *, per_sample: bool = False, largest: bool = True
) -> Tensor:
    """The ``k`` logits that a critic finds most real (Sinha et al., 2020), for the generator.

    ::

        loss = gf.generator_loss(gf.top_k_logits(fake, 0.9), "hinge")

    The gradient of all others is 0. A selection is plain PyTorch.

    Args:
        fake: logits on generated samples.
        k: how many: an integer, as StudioGAN's, or a share in (0, 1] as a float, of which
            ``ceil(k * n)`` are taken, as imaginaire's. Anneal it from step to step on the host.
        per_sample: ``k`` logits of each sample, [B, k] (imaginaire's ``separate_topk``), instead
            of those of the whole batch.
        largest: False where low logits mean real, as in lucidrains' StyleGAN2.

    Returns:
        Tensor [k] or [B, k].

    Raises:
        ValueError: if ``k`` is not a share in (0, 1] or a number of logits that there are.
        TypeError: if ``fake`` is not a floating-point tensor.
    """
    check_tensor("fake", fake)
    if check_flag("per_sample", per_sample) and fake.dim() == 0:
        raise ValueError("fake: expected a batch of logits, got a 0-d tensor.")
    candidates = fake.flatten(1) if per_sample and fake.dim() > 1 else fake.reshape(-1)
    if per_sample and fake.dim() == 1:
        candidates = fake.unsqueeze(1)
    count = candidates.shape[-1]
    if isinstance(k, float):
        if not 0.0 < check_number("k", k) <= 1.0:
            raise ValueError(f"k: expected a share in (0, 1] or an integer, got {k}.")
        k = math.ceil(k * count)
    elif check_integer("k", k) > count:
        raise ValueError(f"k: expected at most {count}, the number of logits, got {k}.")
    return candidates.topk(int(k), dim=-1, largest=check_flag("largest", largest)).values
