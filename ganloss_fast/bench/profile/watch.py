"""Watches one training step, operator by operator, and books each to a part of the step.

Hooks of the two modules say which forward runs, hooks of the autograd nodes that it left say whose
backward runs, and the optimizers say where one side's step ends and the other's begins.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from ganloss_fast._torch import TorchDispatchMode, tree_leaves
from ganloss_fast.flops import flops_of, is_uncounted
from ganloss_fast.graph_cut.rows import Node, walk
from ganloss_fast.graph_cut.second_order import cut

D, G = "discriminator", "generator"
FORWARD, OF_INPUT, OF_WEIGHTS, SECOND = (
    "forward",
    "backward to its input",
    "backward to its weights",
    "second order",
)
OPTIMIZER, REST = "optimizer", "losses and the rest"


@dataclass
class Call:
    """One forward of a module in the step."""

    side: str
    number: int
    inputs: list[Tensor]  # kept alive, so that no other tensor gets their address
    key: tuple[Any, ...]  # alike for two forwards that compute the same
    generated: bool  # whether the generator made the input, with its graph or without
    with_graph: bool


@dataclass(frozen=True)
class Place:
    """What an operator belongs to; ``call`` is None outside of both modules."""

    part: str
    call: int | None = None


@dataclass
class Cost:
    flops: int = 0
    seconds: float = 0.0
    written: int = 0  # bytes
    operators: int = 0

    def add(self, other: Cost) -> None:
        self.flops += other.flops
        self.seconds += other.seconds
        self.written += other.written
        self.operators += other.operators


@dataclass
class Ledger:
    """What a step cost: (whose step it was, where) -> cost."""

    costs: dict[tuple[str, Place], Cost] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    uncounted: set[str] = field(default_factory=set)
    differentiated: set[int] = field(default_factory=set)  # calls, with create_graph: of penalties

    def total(self) -> Cost:
        return self.where(lambda owner, place: True)

    def where(self, chosen: Callable[[str, Place], bool]) -> Cost:
        result = Cost()
        for (owner, place), cost in self.costs.items():
            if chosen(owner, place):
                result.add(cost)
        return result


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class Watch(TorchDispatchMode):
    """The mode that books; one step long."""

    def __init__(
        self,
        discriminators: Sequence[nn.Module],
        generators: Sequence[nn.Module],
        with_cut: bool = False,
        with_labels: bool = True,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sides = {D: list(discriminators), G: list(generators)}
        self.with_cut = with_cut
        self.cutting = False
        self.thread = threading.get_ident()
        self.with_labels = with_labels  # hooks on the nodes, which the cut leaves alone
        self.ledger = Ledger()
        self.open: dict[Place, Cost] = {}  # of the side whose optimizer comes next
        self.owner = ""
        self.stack: list[Place] = []
        self.known: set[Node] = set()
        self.made: set[int] = set()  # storages that the generator wrote
        modules = (*discriminators, *generators)
        parameters = [parameter for module in modules for parameter in module.parameters()]
        alone = torch.get_num_threads() == 1 and not any(p.is_cuda for p in parameters)
        self.now = time.process_time if alone else time.perf_counter  # as timing.HostClock
        self.shapes = {tuple(parameter.shape) for parameter in parameters}
        self.weights = set(map(_storage, parameters))

    # ---- every operator ------------------------------------------------------------------------

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        started = self.now()
        result = func(*args, **(kwargs or {}))
        tensors = [each for each in tree_leaves(result) if isinstance(each, Tensor)]
        if any(each.is_cuda for each in tensors):
            torch.cuda.synchronize()
        seconds = self.now() - started
        flops, of_weights = flops_of(func, args, kwargs or {}, result)
        place = self.stack[-1] if self.stack else Place(REST)
        written = 0 if func.is_view else sum(t.numel() * t.element_size() for t in tensors)
        share = 0.0
        if place.part == OF_INPUT and flops:
            share = of_weights / flops or self._of_weights(args, result)
        self._book(place, flops, seconds, written, 1 - share)
        if share:
            self._book(Place(OF_WEIGHTS, place.call), flops, seconds, written, share)
        if is_uncounted(func):
            self.ledger.uncounted.add(func.overloadpacket.__name__)
        return result

    def _book(self, place: Place, flops: int, seconds: float, written: int, share: float) -> None:
        cost = Cost(round(flops * share), seconds * share, round(written * share), 1)
        self.open.setdefault(place, Cost()).add(cost)

    def _of_weights(self, args: Any, result: Any) -> float:
        """The share of a matrix product of the backward that computes gradients of weights."""
        shape = tuple(result.shape) if isinstance(result, Tensor) else ()
        if shape in self.shapes or shape[::-1] in self.shapes:
            operands = (a for a in args if isinstance(a, Tensor))
            return 0.0 if any(_storage(a) in self.weights for a in operands) else 1.0
        return 0.0

    # ---- forwards, and the nodes they leave ----------------------------------------------------

    def before_forward(self, side: str, inputs: Sequence[Any]) -> None:
        tensors = [each for each in tree_leaves(list(inputs)) if isinstance(each, Tensor)]
        moved = sum(p._version for module in self.sides[side] for p in module.parameters())
        key = (
            side,
            moved,
            *((t.data_ptr(), t._version, tuple(t.shape), t.stride()) for t in tensors),
        )
        generated = any(_storage(t) in self.made for t in tensors)
        number = len(self.ledger.calls)
        call = Call(side, number, tensors, key, generated, torch.is_grad_enabled())
        self.ledger.calls.append(call)
        self.stack.append(Place(FORWARD, number))

    def after_forward(self, side: str, output: Any) -> None:
        place = self.stack.pop()
        tensors = [each for each in tree_leaves(output) if isinstance(each, Tensor)]
        if side == G:
            self.made.update(map(_storage, tensors))
        assert place.call is not None
        inputs = self.ledger.calls[place.call].inputs
        before = set(walk([t.grad_fn for t in inputs])) | self.known
        self._label([t.grad_fn for t in tensors], Place(OF_INPUT, place.call), before)

    def _label(self, roots: Sequence[Node | None], place: Place, without: set[Node]) -> None:
        if not self.with_labels:
            return
        for node in walk([root for root in roots if root is not None]):
            if node in without or hasattr(node, "variable"):
                continue
            self.known.add(node)
            node.register_prehook(lambda *_: self.stack.append(place))
            node.register_hook(lambda *_: self._leave(place))

    def _leave(self, place: Place) -> None:
        if self.stack and self.stack[-1] == place:
            self.stack.pop()

    def grad(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """autograd.grad, whose result leaves nodes of the second order."""

        def watched(*args: Any, **kwargs: Any) -> Any:
            found = original(*args, **kwargs)
            if threading.get_ident() != self.thread or self.cutting:  # a proof of the cut's own
                return found
            if not kwargs.get("create_graph"):
                return found
            self._differentiated(args[1] if len(args) > 1 else kwargs["inputs"])
            tensors = [each for each in found if isinstance(each, Tensor)]
            if self.with_cut:
                self.cutting = True
                shorter = iter(cut([t for t in tensors if t.requires_grad]).grads)
                self.cutting = False
                found = tuple(
                    next(shorter) if isinstance(t, Tensor) and t.requires_grad else t for t in found
                )
                tensors = [each for each in found if isinstance(each, Tensor)]
            self._label([t.grad_fn for t in tensors], Place(SECOND), set(self.known))
            return found

        return watched

    def _differentiated(self, inputs: Any) -> None:
        points = {_storage(each) for each in tree_leaves(inputs) if isinstance(each, Tensor)}
        for call in self.ledger.calls:
            if call.side == D and any(_storage(each) in points for each in call.inputs):
                self.ledger.differentiated.add(call.number)

    # ---- whose step it is ----------------------------------------------------------------------

    def close(self, owner: str) -> None:
        for place, cost in self.open.items():
            self.ledger.costs.setdefault((owner, place), Cost()).add(cost)
        self.open = {}

    def before_optimizer(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        owners = [
            side
            for side, modules in self.sides.items()
            if any(id(p) in held for module in modules for p in module.parameters())
        ]
        self.owner = " and ".join(owners) or "neither"
        self.close(self.owner)
        self.stack.append(Place(OPTIMIZER))

    def after_optimizer(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self.stack.pop()
        self.close(self.owner)


@contextlib.contextmanager
def watched(watch: Watch) -> Iterator[Ledger]:
    """Within the block every operator is booked."""
    handles: list[Any] = []
    for side, modules in watch.sides.items():
        for module in modules:
            handles.append(
                module.register_forward_pre_hook(
                    lambda _, args, side=side: watch.before_forward(side, args)
                )
            )
            handles.append(
                module.register_forward_hook(
                    lambda _, args, output, side=side: watch.after_forward(side, output)
                )
            )
    handles.append(register_optimizer_step_pre_hook(watch.before_optimizer))
    handles.append(register_optimizer_step_post_hook(watch.after_optimizer))
    original = torch.autograd.grad
    torch.autograd.grad = watch.grad(original)
    try:
        with watch:
            yield watch.ledger
        watch.close("neither")
    finally:
        torch.autograd.grad = original
        for handle in handles:
            handle.remove()
