"""Weight clipping, as the critic of the first Wasserstein GAN needs it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ganloss_fast._torch import clamp_each_
from ganloss_fast.checks import check_number, describe


def clip_weights_(parameters: torch.nn.Module | Iterable[Tensor], limit: float = 0.01) -> None:
    """Clamps every weight to [-limit, limit], in place (Arjovsky et al., 2017).

    Two calls for all parameters together, in place of one for each. Call it after the critic's
    optimizer step.

    Args:
        parameters: a module, or tensors.
        limit: the paper's is 0.01.

    Raises:
        ValueError: if ``limit`` is not positive.
        TypeError: if ``parameters`` are no module and no tensors.
    """
    limit = check_number("limit", limit)
    if limit <= 0:
        raise ValueError(f"limit: expected a positive number, got {limit}.")
    if isinstance(parameters, Tensor) or not isinstance(parameters, (torch.nn.Module, Iterable)):
        raise TypeError(f"parameters: expected a module or tensors, got {describe(parameters)}.")
    if isinstance(parameters, torch.nn.Module):
        parameters = parameters.parameters()
    tensors = list(parameters)
    for k, tensor in enumerate(tensors):
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            raise TypeError(
                f"parameters[{k}]: expected a floating-point tensor, got {describe(tensor)}."
            )
    if tensors:
        with torch.no_grad():
            clamp_each_(tensors, -limit, limit)
