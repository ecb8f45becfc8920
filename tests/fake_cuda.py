"""CUDA tensors without data, and a backward for them, on a machine without a GPU.

torch's autograd engine asks the driver for the CUDA context of every device in the graph, fake or
not, so its backward of fake CUDA tensors fails where there is no driver (pytorch#92627). Here the
graph is walked in Python instead: every node is called as it is, only the thread and its device
are left out.
"""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import get_gradient_edge


def _in_order(roots: Sequence[Any]) -> list[Any]:
    """The nodes of a graph, each before those that it hands gradients to."""
    finished: dict[Any, None] = {}
    entered = set()
    stack = list(roots)
    while stack:
        node = stack[-1]
        if node in entered:
            finished.setdefault(stack.pop())
            continue
        entered.add(node)
        stack += [
            after for after, _ in node.next_functions if after is not None and after not in entered
        ]
    return list(reversed(finished))


def _run_backward(
    outputs: Sequence[Tensor],
    directions: Sequence[Tensor],
    keep_graph: bool,
    create_graph: bool,
    inputs: Sequence[Tensor],
    allow_unreachable: bool = True,
    accumulate_grad: bool = False,
) -> tuple[Tensor | None, ...]:
    """``torch.autograd.grad``'s engine: gradients of the outputs along the directions. A backward
    into ``.grad`` is walked too, but nothing is left there."""
    assert inputs or accumulate_grad
    arrived: dict[Any, dict[int, Tensor]] = defaultdict(dict)

    def add(node: Any, slot: int, gradient: Tensor) -> None:
        expected = node._input_metadata[slot]
        assert gradient.device == expected.device
        gradient = gradient.sum_to_size(expected.shape).to(expected.dtype)
        before = arrived[node].get(slot)
        arrived[node][slot] = gradient if before is None else before + gradient

    wanted = [get_gradient_edge(tensor) for tensor in inputs]
    roots = [get_gradient_edge(tensor) for tensor in outputs]
    with torch.set_grad_enabled(create_graph):
        for edge, direction in zip(roots, directions):
            add(edge.node, edge.output_nr, direction)
        for node in _in_order([edge.node for edge in roots]):
            if not arrived[node] or not node.next_functions:
                continue
            slots = range(len(node._input_metadata))
            call = node.apply if isinstance(node, BackwardCFunction) else node
            results = call(*[arrived[node].get(slot) for slot in slots])
            results = results if isinstance(results, tuple) else (results,)
            # A Python function also returns None for arguments without an edge: ours come first.
            surplus = len(results) - len(node.next_functions)
            for (after, slot), gradient in zip(node.next_functions, results[surplus:]):
                if after is not None and gradient is not None:
                    add(after, slot, gradient)
    gradients = tuple(arrived[edge.node].get(edge.output_nr) for edge in wanted)
    assert allow_unreachable or all(gradient is not None for gradient in gradients)
    return gradients


def walked_backward() -> contextlib.AbstractContextManager:
    """Inside, ``torch.autograd.grad`` of this thread walks the graph in Python.

    The graph cut proves its table on real tensors, in a thread of its own, with torch's engine.
    """
    engine, thread = torch.autograd._engine_run_backward, threading.get_ident()

    def run_backward(*arguments: Any, **options: Any) -> tuple[Tensor | None, ...]:
        walks = threading.get_ident() == thread
        return (_run_backward if walks else engine)(*arguments, **options)

    return mock.patch.object(torch.autograd, "_engine_run_backward", run_backward)


@contextlib.contextmanager
def fake_cuda() -> Iterator[None]:
    """Inside, ``device="cuda"`` makes tensors without data, and ``torch.autograd.grad`` works."""
    with FakeTensorMode(), walked_backward():
        yield
