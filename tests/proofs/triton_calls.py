"""The calls of the launchers whose compiled kernels are proved, on tensors of odd length."""

from __future__ import annotations

import torch

from ganloss_fast.ops.triton import launchers

COUNT = 1_000_003  # prime: not a multiple of 16, nor of anything


def segment(dtype, operands: str, code: int = 0) -> tuple:
    """The arguments of one segment: a, and of b and the weights what `operands` names."""
    a = torch.empty(COUNT, dtype=dtype)
    b = {"pair": a, "scalar": a.new_empty(())}
    others = [tensor for name, tensor in b.items() if name in operands]
    weights = [a] if "weight" in operands else []
    return [a], others, weights, [len(others) + 2 * len(weights)], [code], [1.0, 0.5], [2.0]


def joined(segments) -> list[list]:
    """The arguments of a list of segments, each given by its own."""
    return [[x for one in segments for x in one[field]] for field in range(7)]


def accumulator(dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def loss_of_list(dtype, operands, size: int):
    return launchers.multi_tensor_loss(*joined([segment(dtype, operands)] * size), False)


def gradient_of_list(dtype, operands, size: int):
    """Of the second of each pair, as where the other is data; of a, where there is no pair."""
    scalar = torch.empty((), dtype=accumulator(dtype))
    wanted = range(size, 2 * size) if operands == "pair" else range(size)
    lists = joined([segment(dtype, operands)] * size)
    return launchers.multi_tensor_loss_backward(scalar, None, *lists, list(wanted))


def gradient(dtype, operands, code=0):
    scalar = torch.empty((), dtype=accumulator(dtype))
    wanted = [0] if operands == "a" else [0, 1]
    return launchers.multi_tensor_loss_backward(
        scalar, None, *segment(dtype, operands, code), wanted
    )


def second_order(dtype, operands, code=0):
    a, b, *rest = segment(dtype, operands, code)
    scalar = torch.empty((), dtype=accumulator(dtype))
    return launchers.multi_tensor_loss_double_backward(
        [*a, *b], scalar, None, a, b, *rest, [0, 1], [0, 1]
    )


def penalty(dtype, shape, order: int):
    g, norms = torch.empty(shape, dtype=dtype), torch.empty(shape[0], dtype=accumulator(dtype))
    scalar, penalised = torch.empty((), dtype=accumulator(dtype)), (0, 1.0, 10.0)
    if order == 0:
        return launchers.norm_penalty(g, *penalised)
    if order == 1:
        return launchers.norm_penalty_backward(scalar, g, norms, *penalised)
    return launchers.norm_penalty_double_backward(g, scalar, g, norms, *penalised)


def interpolate(dtype, alpha_shape):
    batch = torch.empty((3, COUNT), dtype=dtype)
    return launchers.interpolate(batch, batch, torch.empty(alpha_shape, dtype=dtype))


def perturb(dtype):
    return launchers.perturb(torch.empty(COUNT, dtype=dtype), 0.5, torch.tensor(7))


LONG, SHORT = (3, COUNT), (1000, 33)
CALLS = {
    "loss": lambda dtype: launchers.multi_tensor_loss(*segment(dtype, "a"), False),
    "loss, with statistics": lambda dtype: launchers.multi_tensor_loss(*segment(dtype, "a"), True),
    "loss, pair and weights": lambda dtype: launchers.multi_tensor_loss(
        *segment(dtype, "pair weight"), False
    ),
    "gradient": lambda dtype: gradient(dtype, "a"),
    "gradient, pair": lambda dtype: gradient(dtype, "pair"),
    "gradient, scalar b": lambda dtype: gradient(dtype, "scalar"),
    "second order, pair": lambda dtype: second_order(dtype, "pair"),
    "loss of a list of 8": lambda dtype: loss_of_list(dtype, "a", 8),
    "gradient of a list of 8": lambda dtype: gradient_of_list(dtype, "a", 8),
    "loss of a list of 54 pairs": lambda dtype: loss_of_list(dtype, "pair", 54),
    "gradient of a list of 54 pairs": lambda dtype: gradient_of_list(dtype, "pair", 54),
    "penalty": lambda dtype: penalty(dtype, LONG, 0),
    "penalty, gradient": lambda dtype: penalty(dtype, LONG, 1),
    "penalty, second order": lambda dtype: penalty(dtype, LONG, 2),
    "interpolate, one alpha for each sample": lambda dtype: interpolate(dtype, LONG[:1]),
    "interpolate, one alpha for each element": lambda dtype: interpolate(dtype, LONG),
    "perturb": perturb,
    "penalty of short samples": lambda dtype: penalty(dtype, SHORT, 0),
    "penalty of short samples, gradient": lambda dtype: penalty(dtype, SHORT, 1),
}
