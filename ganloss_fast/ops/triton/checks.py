"""Argument checks for direct calls of the ops: those of ``csrc/host/checks.h``, in its words.

The public functions have checked before and say more; these keep a wrong call from making a kernel
read memory that is not there, or read it as another type.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ganloss_fast.ops.norm_penalty import PENALTY_MODES
from ganloss_fast.ops.terms import HAS_B, HAS_WEIGHT, TERM_NAMES, SegmentLists

SUPPORTED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_operand(name: str, tensor: Tensor, like: Tensor) -> None:
    if tensor.device != like.device:
        raise ValueError(f"{name}: expected device {like.device}, got {tensor.device}")
    if tensor.dtype not in SUPPORTED:
        raise TypeError(
            f"{name}: expected float16, bfloat16, float32 or float64, got {tensor.dtype}"
        )


def check_shape(name: str, tensor: Tensor, shape: Sequence[int], like: Tensor) -> None:
    """A tensor that goes with ``like``, in a dtype of its own."""
    check_operand(name, tensor, like)
    if tensor.shape != shape:
        raise ValueError(f"{name}: expected shape {list(shape)}, got {list(tensor.shape)}")


def check_same(name: str, tensor: Tensor, like: Tensor) -> None:
    """``tensor`` runs beside ``like``: same device, shape and dtype."""
    check_shape(name, tensor, like.shape, like)
    if tensor.dtype != like.dtype:
        raise TypeError(f"{name}: expected dtype {like.dtype}, got {tensor.dtype}")


def check_segments(segments: SegmentLists) -> None:
    a, b, weights, operands, terms, parameters, scale = segments
    count = len(a)
    if count == 0:
        raise ValueError("a: expected at least one segment, got none")
    lengths: tuple[tuple[str, Sequence[Any], int], ...] = (
        ("operands", operands, count),
        ("terms", terms, count),
        ("parameters", parameters, 2 * count),
        ("scale", scale, count),
        ("b", b, len([taken for taken in operands if taken & HAS_B])),
        ("weights", weights, len([taken for taken in operands if taken & HAS_WEIGHT])),
    )
    for name, entries, expected in lengths:
        if len(entries) != expected:
            raise ValueError(
                f"{name}: expected {expected} entries for {count} segments, got {len(entries)}"
            )
    next_b, next_weight = iter(b), iter(weights)
    for tensor, taken, term in zip(a, operands, terms):
        check_operand("a", tensor, a[0])
        if not 0 <= term < len(TERM_NAMES):
            raise ValueError(f"terms: expected codes from 0 to {len(TERM_NAMES) - 1}, got {term}")
        if taken & HAS_B:
            other = next(next_b)
            if other.dim() == 0:
                check_operand("b", other, tensor)
            else:
                check_same("b", other, tensor)
        if taken & HAS_WEIGHT:
            check_shape("weights", next(next_weight), tensor.shape, tensor)


def check_incoming(
    grad_total: Tensor | None, grad_values: Tensor | None, a: Sequence[Tensor]
) -> None:
    """The gradients of the total and of the values of the segments."""
    if grad_total is not None:
        check_shape("grad_total", grad_total, (), a[0])
    if grad_values is not None:
        check_shape("grad_values", grad_values, (len(a),), a[0])


def check_penalty(gradient: Tensor, mode: int) -> None:
    check_operand("gradient", gradient, gradient)
    if gradient.dim() == 0:
        raise ValueError("gradient: expected a batch dimension, got a 0-d tensor")
    if not 0 <= mode < len(PENALTY_MODES):
        raise ValueError(f"mode: expected 0 to {len(PENALTY_MODES) - 1}, got {mode}")


def check_penalty_backward(
    grad_penalty: Tensor, gradient: Tensor, norms: Tensor, mode: int
) -> None:
    check_penalty(gradient, mode)
    check_shape("grad_penalty", grad_penalty, (), gradient)
    check_shape("norms", norms, gradient.shape[:1], gradient)


def check_seed(seed: Tensor, like: Tensor) -> None:
    if seed.device != like.device:
        raise ValueError(f"seed: expected device {like.device}, got {seed.device}")
    if seed.dtype != torch.int64:
        raise TypeError(f"seed: expected dtype torch.int64, got {seed.dtype}")
    if seed.numel() != 1:
        raise ValueError(f"seed: expected one element, got shape {list(seed.shape)}")
