"""Argument checks of the public functions: they name the argument, what was expected, what came."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

FLOATING = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

Outputs = Tensor | Sequence[Tensor]
Weight = float | Tensor


def describe(value: object) -> str:
    """A short description of a wrong argument."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)} and dtype {value.dtype}"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{type(value).__name__} ({value!r})" if value is not None else "None"


def is_plain(value: Any) -> bool:
    """The usual case of :func:`check_tensor`, without building a name for it."""
    return type(value) is Tensor and value.dtype in FLOATING and value.layout is torch.strided


def check_tensor(name: str, value: Any) -> Tensor:
    """A dense floating-point tensor."""
    if is_plain(value):
        return value
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {describe(value)}.")
    if value.dtype not in FLOATING:
        raise TypeError(
            f"{name}: expected float16, bfloat16, float32 or float64, got {value.dtype}. "
            f"Convert it first, for example {name}.float()."
        )
    if value.layout != torch.strided:
        raise TypeError(f"{name}: expected a dense tensor, got layout {value.layout}.")
    return value


def as_outputs(name: str, value: object) -> list[Tensor]:
    """A tensor, or a flat sequence of tensors, as a list."""
    if isinstance(value, Tensor):
        return [check_tensor(name, value)]
    if not isinstance(value, (list, tuple)):
        raise TypeError(
            f"{name}: expected a tensor or a sequence of tensors, got {describe(value)}."
        )
    if not value:
        raise ValueError(f"{name}: expected at least one tensor, got an empty sequence.")
    for k, item in enumerate(value):
        if isinstance(item, (list, tuple)):
            raise ValueError(
                f"{name}: expected a flat sequence of tensors, but entry {k} is "
                f"{describe(item)}. If each entry holds feature maps and logits, pass the "
                f"logits alone: [outputs[-1] for outputs in {name}]."
            )
        if not is_plain(item):
            check_tensor(f"{name}[{k}]", item)
    check_one_device(name, value)
    return list(value)


def check_one_device(name: str, tensors: Sequence[Tensor]) -> None:
    """All tensors of one call lie on one device."""
    device = tensors[0].device
    for k, tensor in enumerate(tensors):
        if tensor.device != device:
            raise ValueError(
                f"{name}: expected all tensors on one device, got {device} for entry 0 and "
                f"{tensor.device} for entry {k}."
            )


def check_same_device(name: str, tensor: Tensor, like_name: str, like: Tensor) -> None:
    if tensor.device != like.device:
        raise ValueError(
            f"{name}: expected the device of {like_name}, {like.device}, got {tensor.device}."
        )


def check_number(name: str, value: object) -> float:
    """A finite real number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: expected a number, got {describe(value)}.")
    if not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value}.")
    return float(value)


def check_weight(name: str, value: object) -> None:
    """A finite number, or a 0-d floating-point tensor (which may change per step)."""
    if type(value) is float and math.isfinite(value):
        return
    if isinstance(value, Tensor):
        if value.dim() != 0 or not value.dtype.is_floating_point:
            raise ValueError(
                f"{name}: expected a number or a 0-d floating-point tensor, got {describe(value)}."
            )
    else:
        check_number(name, value)


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}.")
