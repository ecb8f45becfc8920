"""The allow-list of the graph cut, and its proof.

A row names a double-backward node and the edge on which it sends an exact zero, whatever the
data. Names and indices are internals of PyTorch, so none is trusted: the first time a process
meets a node, its row is run on tiny graphs, and if it fails it is left out with a warning. A
node that is not in the table is left alone, which is always right, only slower.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ganloss_fast.checks import warn_caller

Node = Any  # torch.autograd.graph.Node, of which the stubs say little


class Row(NamedTuple):
    """One edge that carries zeros.

    ``example`` runs the operation that makes the node, on a tensor and a weight. ``shape`` is
    the tensor's. With ``idle_input`` the edge is zero only while that incoming gradient is
    undefined.
    """

    node: str
    edge: int
    example: Callable[[Tensor, Tensor], Tensor]
    shape: tuple[int, ...] = (2, 3, 6, 6)
    real_only: bool = False
    idle_input: int = -1


def _rrelu(x: Tensor, _: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)  # leaves the caller's random numbers alone
    y: Tensor = torch.ops.aten.rrelu_with_noise(
        x, torch.empty_like(x), 0.1, 0.3, training=True, generator=generator
    )
    return y


def _fractional(pool: Callable[..., Tensor], dimensions: int) -> Callable[[Tensor, Tensor], Tensor]:
    def run(x: Tensor, _: Tensor) -> Tensor:
        samples = x.new_full((x.shape[0], x.shape[1], dimensions), 0.3)
        return pool(x, 2, output_size=2, _random_samples=samples)

    return run


def _pad(mode: str, *widths: int) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, _: F.pad(x, widths, mode=mode)


_LINE, _CUBE = (2, 3, 6), (2, 2, 4, 4, 4)

ROWS = (
    Row("ThresholdBackwardBackward0", 1, lambda x, _: F.relu(x)),
    Row("LeakyReluBackwardBackward0", 1, lambda x, _: F.leaky_relu(x, 0.2)),
    # The weight's gradient sum(x * g) depends on x, so the edge is genuine where the inner
    # gradient includes the weight (an unrolled critic).
    Row("PreluKernelBackwardBackward0", 1, lambda x, w: F.prelu(x, w), idle_input=1),
    Row("HardtanhBackwardBackward0", 1, lambda x, _: F.hardtanh(x, -0.5, 0.5)),
    Row("RreluWithNoiseBackwardBackward0", 1, _rrelu),
    Row("HardshrinkBackwardBackward0", 1, lambda x, _: F.hardshrink(x, 0.3)),
    Row("SoftshrinkBackwardBackward0", 1, lambda x, _: F.softshrink(x, 0.3)),
    Row("AvgPool2DBackwardBackward0", 1, lambda x, _: F.avg_pool2d(x, 2)),
    Row("AvgPool3DBackwardBackward0", 1, lambda x, _: F.avg_pool3d(x, 2), _CUBE),
    Row("AdaptiveAvgPool2DBackwardBackward0", 1, lambda x, _: F.adaptive_avg_pool2d(x, 4)),
    Row("AdaptiveAvgPool3DBackwardBackward0", 1, lambda x, _: F.adaptive_avg_pool3d(x, 3), _CUBE),
    Row("AdaptiveMaxPool2DBackwardBackward0", 1, lambda x, _: F.adaptive_max_pool2d(x, 3)),
    Row("AdaptiveMaxPool3DBackwardBackward0", 1, lambda x, _: F.adaptive_max_pool3d(x, 2), _CUBE),
    Row("MaxPool2DWithIndicesBackwardBackward0", 1, lambda x, _: F.max_pool2d(x, 2)),
    Row("MaxPool3DWithIndicesBackwardBackward0", 1, lambda x, _: F.max_pool3d(x, 2), _CUBE),
    Row("FractionalMaxPool2DBackwardBackward0", 1, _fractional(F.fractional_max_pool2d, 2)),
    Row("FractionalMaxPool3DBackwardBackward0", 1, _fractional(F.fractional_max_pool3d, 3), _CUBE),
    Row("ReflectionPad1DBackwardBackward0", 1, _pad("reflect", 1, 1), _LINE),
    Row("ReflectionPad2DBackwardBackward0", 1, _pad("reflect", 1, 1, 1, 1)),
    Row("ReflectionPad3DBackwardBackward0", 1, _pad("reflect", *[1] * 6), _CUBE),
    Row("ReplicationPad1DBackwardBackward0", 1, _pad("replicate", 1, 1), _LINE),
    Row("ReplicationPad2DBackwardBackward0", 1, _pad("replicate", 1, 1, 1, 1)),
    Row("ReplicationPad3DBackwardBackward0", 1, _pad("replicate", *[1] * 6), _CUBE),
    # From abs. The phase of a complex number does depend on it.
    Row("SgnBackward0", 0, lambda x, _: x.abs(), real_only=True),
)


def walk(roots: Sequence[Node | None], behind: Iterable[Node | None] = ()) -> Iterator[Node]:
    """Every autograd node that can be reached from the roots, once; none through ``behind``."""
    seen: set[Node | None] = set(behind)
    stack = [node for node in roots if node is not None]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        yield node
        stack.extend(following for following, _ in node.next_functions if following is not None)


def _example_gradients(row: Row, with_weight: bool) -> tuple[Tensor, ...]:
    """The inner gradients of a tiny critic  x -> affine -> row.example -> weighted sum."""
    count = 1
    for extent in row.shape:
        count *= extent
    # Both signs and no two values alike: no kink is hit and no maximum is tied.
    values = torch.sin(torch.arange(count, dtype=torch.float64) * 1.7 + 0.3)
    x = values.reshape(row.shape).requires_grad_(True)
    weight = torch.full((1,), 0.25, dtype=torch.float64, requires_grad=True)
    y = row.example(x * (1 + weight), weight)
    # They require grad, as a next layer's do: else a wrong edge would lead nowhere and look zero.
    outer_weights = torch.cos(torch.arange(y.numel(), dtype=torch.float64)).reshape(y.shape)
    outer_weights.requires_grad_(True)
    wanted = (x, weight) if with_weight else (x,)
    return torch.autograd.grad((y * outer_weights).sum(), wanted, create_graph=True)


def _edge_is_zero(row: Row, with_weight: bool) -> bool:
    """Runs one tiny graph and looks at what goes along the edge."""
    found: list[bool] = []

    def look(grad_inputs: Sequence[Tensor | None], grad_outputs: Sequence[Tensor | None]) -> None:
        if row.idle_input >= 0 and grad_outputs[row.idle_input] is not None:
            found.append(True)  # not cut in this case, so nothing is claimed
            return
        along = grad_inputs[row.edge]
        found.append(along is None or not along.any())

    gradients = _example_gradients(row, with_weight)
    for node in walk([gradient.grad_fn for gradient in gradients]):
        if node.name() == row.node:
            edges = node.next_functions
            if row.edge >= len(edges) or edges[row.edge][0] is None:
                return False
            node.register_hook(look)
    torch.stack([gradient.square().sum() for gradient in gradients]).sum().backward()
    return bool(found) and all(found)


def row_holds(row: Row) -> bool:
    """Whether the row's edge carries zeros in this torch: for gradients of the input alone, and
    of the input and a parameter."""
    try:
        return _edge_is_zero(row, with_weight=False) and _edge_is_zero(row, with_weight=True)
    except Exception:  # an operation that this torch does not have, or has changed
        return False


_ROWS_BY_NODE = {row.node: row for row in ROWS}


def without_callers_modes(proof: Callable[[], bool]) -> bool:
    """Runs a proof in a new thread, which has none of the caller's modes: no autocast, no_grad,
    dispatch modes, default device, or saved-tensor hooks."""
    holds: list[bool] = []
    thread = threading.Thread(target=lambda: holds.append(proof()))
    thread.start()
    thread.join()
    return holds[0]


@functools.cache
def proven_row(node_name: str) -> Row | None:
    """The row of a node if there is one and it holds; proven once in a process, about 1 ms."""
    row = _ROWS_BY_NODE.get(node_name)
    if row is None:
        return None
    if without_callers_modes(lambda: row_holds(row)):
        return row
    warn_caller(
        f"ganloss_fast: the graph cut leaves {node_name} alone, because torch "
        f"{torch.__version__} differs from the releases it was written for. Gradients are "
        "right; penalties on critics with this operation are slower.",
    )
    return None
