"""FLOPs of operators, as torch.utils.flop_counter counts them and where it does not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor


def _known(*names: str) -> set[Any]:
    return {getattr(torch.ops.aten, name) for name in names if hasattr(torch.ops.aten, name)}


CONVOLUTIONS = _known("convolution", "convolution_backward")
_RECURRENT = _known("mkldnn_rnn_layer", "_cudnn_rnn")

# Kernels of whole layers, for which torch counts nothing.
_WITHOUT_FORMULA = _known(
    "miopen_rnn",
    "_native_multi_head_attention",
    "_transformer_encoder_layer_fwd",
    "mkldnn_linear",
    "bilinear",
    "_trilinear",
    "mv",
    "addmv",
    "dot",
)


@cache
def _of_torch() -> dict[Any, Callable[..., int]]:
    from torch.utils.flop_counter import flop_registry  # imports Triton, which takes a second

    return flop_registry


def flops_of(
    func: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any
) -> tuple[int, int]:
    """Of an operator that a dispatch mode sees: all, and those of these that compute gradients of
    a convolution's weights."""
    packet = func.overloadpacket
    if packet is torch.ops.aten.convolution_backward:
        return _convolution_backward(*args)
    if packet in _RECURRENT:
        return _recurrent(*args), 0
    formula = _of_torch().get(packet)
    return (0 if formula is None else formula(*args, **kwargs, out_val=result)), 0


def is_uncounted(func: Any) -> bool:
    """Whether it multiplies matrices, and nobody knows how many FLOPs these are."""
    return func.overloadpacket in _WITHOUT_FORMULA


def _convolution_backward(*args: Any) -> tuple[int, int]:
    """Either gradient takes the FLOPs of the forward. (torch's formula counts those of the weights
    of a grouped convolution once for each group.)"""
    gradient, inputs, weight, *_, transposed, _, _, mask = args
    extents = (inputs if transposed else gradient).shape[2:]
    forward = 2 * inputs.shape[0] * math.prod(extents) * weight.numel()
    return forward * (mask[0] + mask[1]), forward * mask[1]


def _recurrent(inputs: Tensor, *others: Any) -> int:
    """Of a layer, or several, in one kernel: every token meets every weight matrix once."""
    listed: Sequence[Tensor] = others[0] if isinstance(others[0], (list, tuple)) else others[:2]
    tokens = inputs.numel() // inputs.shape[-1]
    return 2 * tokens * sum(weight.numel() for weight in listed if weight.dim() == 2)
