"""What a call of a Triton launcher costs before the GPU has anything to do, counted, not timed.

Every operator of torch takes one to two microseconds, every Python call about a tenth of one,
and Triton's own launch ten and more. A launch of a single program needs no workspace.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("triton")
from triton.runtime.jit import JITFunction

from ganloss_fast.ops import dispatch
from ganloss_fast.ops.triton import launchers

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("TRITON_INTERPRET=1: its launches are not Triton's", allow_module_level=True)


class _CountOperators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function._schema.name.removeprefix("aten::"))
        return function(*args, **(kwargs or {}))


class Cost(NamedTuple):
    launches: int
    operators: Counter[str]  # of torch
    python_calls: int


@contextlib.contextmanager
def python_calls() -> Iterator[list[str]]:
    """The names of the Python functions that are called inside."""
    names: list[str] = []

    def note(frame, event, argument):
        if event == "call":
            names.append(frame.f_code.co_name)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield names
    finally:
        sys.setprofile(before)


def cost_of(call: Callable[[], Any]) -> Cost:
    """Of a call whose launches do nothing."""
    launched: list[JITFunction] = []

    def run(self: JITFunction, *arguments: Any, **keywords: Any) -> None:
        launched.append(self)

    with mock.patch.object(JITFunction, "run", run):
        with _CountOperators() as counter:
            call()
        with python_calls() as names:
            call()
    return Cost(len(launched) // 2, Counter(counter.names), len(names))


def segments(length: int, count: int = 1, scalar_b: bool = False) -> tuple:
    """The segment arguments of an op: ``count`` segments, dense float32."""
    a = [torch.zeros(length) for _ in range(count)]
    b = [torch.zeros(()) for _ in a if scalar_b]
    return a, b, [], [int(scalar_b)] * count, [0] * count, [1.0, 0.0] * count, [1.0] * count


ONE = torch.ones(())
TILE, TILES = 1000, 100_000
BATCHES = {"one program": torch.zeros(8, 16), "programs": torch.zeros(16, 5000)}


def loss(length: int, count: int = 1):
    given = segments(length, count)
    return lambda: launchers.multi_tensor_loss(*given, False)


def gradient(length: int, scalar_b: bool):
    given = segments(length, scalar_b=scalar_b)
    wanted = [0, 1] if scalar_b else [0]
    return lambda: launchers.multi_tensor_loss_backward(ONE, None, *given, wanted)


def second_order(length: int):
    given = segments(length)
    return lambda: launchers.multi_tensor_loss_double_backward(
        given[0], ONE, None, *given, [0], [0]
    )


def penalty(name: str):
    return lambda: launchers.norm_penalty(BATCHES[name], 0, 1.0, 1.0)


def penalty_gradient(name: str):
    g = BATCHES[name]
    norms = torch.ones(g.shape[0])
    return lambda: launchers.norm_penalty_backward(ONE, g, norms, 0, 1.0, 1.0)


def interpolation(name: str):
    x = BATCHES[name]
    alpha = torch.ones(x.shape[0])
    return lambda: launchers.interpolate(x, x, alpha)


def noise():
    seed = torch.zeros((), dtype=torch.int64)
    return lambda: launchers.perturb(BATCHES["programs"], 0.1, seed)


# Launches, operators of torch, and the most Python calls: as many as there are, and a quarter.
COSTS = {
    "loss, one program": (loss(TILE), 1, {"new_empty": 3}, 49),
    "loss": (loss(TILES), 1, {"new_empty": 3, "zeros": 1}, 50),
    "loss of 8": (loss(TILES, 8), 1, {"new_empty": 3, "zeros": 1}, 115),
    "gradient": (gradient(TILES, False), 1, {"empty_like": 1}, 68),
    "gradient, scalar b": (gradient(TILES, True), 1, {"empty_like": 2, "zeros": 1}, 78),
    "second order, one program": (second_order(TILE), 1, {"empty_like": 1, "new_empty": 2}, 80),
    "second order": (second_order(TILES), 1, {"empty_like": 1, "new_empty": 2, "zeros": 1}, 81),
    "penalty, one program": (penalty("one program"), 1, {"new_empty": 2}, 30),
    "penalty": (penalty("programs"), 1, {"new_empty": 2, "zeros": 1}, 30),
    "penalty, gradient": (penalty_gradient("programs"), 1, {"empty_like": 1}, 35),
    "perturb": (noise(), 1, {"empty_like": 1}, 25),
    "interpolate": (interpolation("programs"), 1, {"empty_like": 1}, 30),
}


@pytest.mark.parametrize("name", COSTS)
def test_a_call_costs_no_more_than_this(name):
    call, launches, operators, python_calls = COSTS[name]
    cost = cost_of(call)
    assert cost.launches == launches
    assert cost.operators == Counter(operators)
    assert cost.python_calls <= python_calls


def test_the_launchers_are_imported_once_and_not_at_every_call():
    """An import statement of what is imported already still takes a microsecond."""
    dispatch.triton_launchers()
    with mock.patch("builtins.__import__", side_effect=AssertionError("imported again")):
        assert dispatch.triton_launchers() is launchers
