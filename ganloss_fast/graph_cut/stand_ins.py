"""The proof of the nodes that stand in for stock autograd's.

``csrc/graph_cut/replacements.cpp`` replaces double-backward nodes of convolutions by cheaper ones.
What it takes from a node of PyTorch, its fields and the order of its edges, are internals as the
rows' are; so a stand-in, too, is tried on tiny graphs when a process first meets a node that it
could replace, and stays out with a warning if the gradients are not stock autograd's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ganloss_fast import backends
from ganloss_fast.checks import warn_caller
from ganloss_fast.graph_cut.rows import without_callers_modes

if backends.HAS_NATIVE:
    from ganloss_fast import _C


class StandIn(NamedTuple):
    """A node of ours: for a weight that learns, or a constant one; equal to ``tolerance``, relative
    to the largest element, in ``dtype``."""

    node: str
    learns: bool
    dtype: torch.dtype
    tolerance: float


STAND_INS = (
    StandIn("GanlossConstantConvolutionBackwardBackward0", False, torch.float32, 0.0),
    StandIn("GanlossConvolutionBackwardBackward0", True, torch.float64, 1e-12),
)


class Layer(NamedTuple):
    """A convolution, and the shapes of its input and weight."""

    convolution: Callable[[Tensor, Tensor], Tensor]
    x: tuple[int, ...]
    weight: tuple[int, ...]


# Extents, strides and groups of which no two are alike, so that none can stand for another.
_LAYERS = (
    Layer(
        lambda x, w: F.conv2d(x, w, stride=(2, 1), padding=(1, 2), groups=2),
        (3, 4, 7, 6),
        (6, 2, 3, 2),
    ),
    Layer(
        lambda x, w: F.conv_transpose2d(x, w, stride=(2, 3), padding=1, output_padding=1, groups=2),
        (3, 4, 3, 4),
        (4, 3, 3, 2),
    ),
    Layer(lambda x, w: F.conv1d(x, w, dilation=2, groups=4), (2, 4, 9), (8, 1, 3)),
)


def _values(shape: tuple[int, ...], dtype: torch.dtype, phase: float) -> Tensor:
    count = torch.Size(shape).numel()
    values = torch.sin(torch.arange(count, dtype=torch.float64) * 1.7 + phase)
    return values.reshape(shape).to(dtype)


def _penalty_gradients(stand_in: StandIn, layer: Layer, replaced: bool) -> tuple[Tensor, ...]:
    x = _values(layer.x, stand_in.dtype, 0.3).requires_grad_(True)
    weight = _values(layer.weight, stand_in.dtype, 0.9).requires_grad_(stand_in.learns)
    y = layer.convolution(x, weight)
    (gradient,) = torch.autograd.grad(y.sin().sum(), x, create_graph=True)
    if replaced:
        gradient = _C.under_stand_in(gradient, stand_in.node)
    wanted = (x, weight) if stand_in.learns else (x,)
    return torch.autograd.grad(gradient.square().sum(), wanted)


def _is_equal(found: Tensor, stock: Tensor, tolerance: float) -> bool:
    if tolerance == 0:
        return torch.equal(found, stock)
    return bool((found - stock).abs().max() <= tolerance * stock.abs().max())


def stand_in_holds(stand_in: StandIn) -> bool:
    """Whether its gradients are stock autograd's in this torch."""
    try:
        return all(
            _is_equal(found, stock, stand_in.tolerance)
            for layer in _LAYERS
            for found, stock in zip(
                _penalty_gradients(stand_in, layer, replaced=True),
                _penalty_gradients(stand_in, layer, replaced=False),
                strict=True,
            )
        )
    except Exception:  # there is no such node in this torch, or it cannot be taken
        return False


@functools.cache
def proven_stand_in(node_name: str) -> bool:
    """Whether the node of that name may be used; proven once in a process, about 2 ms."""
    (stand_in,) = (s for s in STAND_INS if s.node == node_name)
    if without_callers_modes(lambda: stand_in_holds(stand_in)):
        return True
    warn_caller(
        "ganloss_fast: the graph cut leaves convolutions with a "
        f"{'learning' if stand_in.learns else 'constant'} weight to stock autograd, because torch "
        f"{torch.__version__} differs from the releases it was written for. Gradients are right; "
        "penalties on critics with these layers are slower.",
    )
    return False
