"""Watches one training step, operator by operator, and books each to a part of the step.

Calls of modules say which forward runs, hooks of the autograd nodes that it left say whose backward
runs, and the optimizers say where one side's step ends and the other's begins.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from ganloss_fast._torch import (
    TorchDispatchMode,
    backwards_run_by,
    is_functorch_active,
    tree_leaves,
)
from ganloss_fast.bench.profile.flow import Flow, tensors_in
from ganloss_fast.bench.profile.graph import AGAIN, DEAD, Frame, Graph, is_leaf, nodes_of
from ganloss_fast.bench.profile.ledger import (
    FORWARD,
    OF_INPUT,
    OF_WEIGHTS,
    OPTIMIZER,
    REST,
    Backward,
    Call,
    D,
    G,
    Ledger,
    Operator,
    Place,
)
from ganloss_fast.bench.profile.target import TargetError
from ganloss_fast.flops import flops_of, is_uncounted
from ganloss_fast.graph_cut.rows import walk
from ganloss_fast.penalties.critic.modules import is_power_iteration

_PLAIN = (bool, int, float, str, type(None))


def _is_statistics(part: nn.Module) -> bool:
    return part.training and getattr(part, "running_mean", None) is not None


def _whose_parts(sides: Mapping[str, Sequence[nn.Module]]) -> dict[nn.Module, str]:
    """Of modules that hold others, as a GAN of one module does, those inside claim their parts."""
    every = [(module, side) for side, modules in sides.items() for module in modules]
    every.sort(key=lambda pair: -sum(1 for _ in pair[0].modules()))
    return {part: side for module, side in every for part in module.modules()}


class Watch(TorchDispatchMode):
    """The mode that books; one step long."""

    def __init__(self, sides: Mapping[str, Sequence[nn.Module]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.belongs = _whose_parts(sides)
        self.others: dict[nn.Module, str] = {}  # other networks, by name; "" for wrappers
        self.ledger = Ledger()
        self.flow = Flow(self.ledger.operators)
        self.stack: list[Frame] = []
        self.graph = Graph(self.stack)
        self.running: list[tuple[Backward, int]] = []  # and the stack's height when it began
        self.turn = ""  # whose optimizer steps
        self.thread = threading.get_ident()
        self.parameters = {side: self._parameters_of(side) for side in (D, G)}
        self.moved: dict[int, int] = {}  # id of a parameter -> optimizers that stepped over it
        every = [p for listed in self.parameters.values() for p in listed]
        alone = torch.get_num_threads() == 1 and not any(p.is_cuda for p in every)
        self.now = time.process_time if alone else time.perf_counter  # as timing.HostClock
        self.shapes = {tuple(parameter.shape) for parameter in every}
        self.weights = {p.untyped_storage().data_ptr() for p in every}
        self.before = {side: self._stands_for_the_last_step(side) for side in (D, G)}

    def _parameters_of(self, side: str) -> list[nn.Parameter]:
        parts = (part for part, whose in self.belongs.items() if whose == side)
        return list({id(p): p for part in parts for p in part.parameters(recurse=False)}.values())

    def _stands_for_the_last_step(self, side: str) -> int:
        """An operator without cost that wrote the gradients that are there."""
        self.ledger.operators.append(Operator(Place(OF_WEIGHTS), 0, None))
        number = len(self.ledger.operators) - 1
        self.flow.writers.update(dict.fromkeys(self._gradients(side), number))
        return number

    def _gradients(self, side: str) -> list[int]:
        return [self.flow.key(p.grad) for p in self.parameters[side] if p.grad is not None]

    # ---- every operator ------------------------------------------------------------------------

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        sources = self.flow.sources(func, args, kwargs)
        started = self.now()
        result = func(*args, **kwargs)
        tensors = tensors_in(result)
        if any(each.is_cuda for each in tensors):
            torch.cuda.synchronize()
        seconds = self.now() - started
        flops, of_weights = flops_of(func, args, kwargs, result)
        parts = [(1.0, flops, tensors, of_weights > 0)]
        if 0 < of_weights < flops:
            share = of_weights / flops
            parts = [(1 - share, flops - of_weights, tensors[:1], False)]
            parts += [(share, of_weights, tensors[1:], True)]
        written = []
        for share, flops, results, for_weights in parts:
            operator = self._operator(func, args, result, for_weights)
            operator.flops, operator.seconds, operator.sources = flops, seconds * share, sources
            if not func.is_view:
                operator.written = sum(t.numel() * t.element_size() for t in results)
            self.ledger.operators.append(operator)
            written.append((len(self.ledger.operators) - 1, results))
        self.flow.write(func, args, kwargs, written)
        if is_uncounted(func):
            self.ledger.uncounted.add(func.overloadpacket.__name__)
        if self.stack and torch.Tag.nondeterministic_seeded in func.tags:
            call = self.stack[-1].place.call
            if call is not None:
                self.ledger.calls[call].random = True
        return result

    def _operator(self, func: Any, args: Any, result: Any, for_weights: bool) -> Operator:
        """Without its costs."""
        backward, height = self.running[-1] if self.running else (None, -1)
        if len(self.stack) != height:
            frame = self.stack[-1] if self.stack else Frame(Place(REST))
        else:  # autograd adds two gradients up
            frame = Frame(self.graph.last)
        place = frame.place
        if place.part == OF_INPUT and (for_weights or self._is_of_weights(args, result)):
            place = Place(OF_WEIGHTS, place.call)
        dead = frame.kind == DEAD
        if frame.constant is not None and not func.is_view:
            filters = frame.constant.untyped_storage().data_ptr()
            dead = dead or all(t.untyped_storage().data_ptr() != filters for t in tensors_in(args))
        return Operator(
            place,
            len(self.ledger.turns),
            None if backward is None else backward.number,
            dead=dead,
            again=frame.kind == AGAIN,
        )

    def _is_of_weights(self, args: Any, result: Any) -> bool:
        """Whether a product, or a sum, of the backward is a gradient of weights."""
        shape = tuple(result.shape) if isinstance(result, Tensor) else ()
        if len(shape) < 2 or not (shape in self.shapes or shape[::-1] in self.shapes):
            return False
        operands = (a for a in args if isinstance(a, Tensor))
        return all(a.untyped_storage().data_ptr() not in self.weights for a in operands)

    # ---- forwards, and the nodes they leave ----------------------------------------------------

    def _side(self, module: nn.Module) -> str:
        """Whose forward its call is; "" if it is none, or part of one that runs. A checkpoint's is
        one of its own, though it runs in a node of the first."""
        place = self.stack[-1].place if self.stack else Place(REST)
        inside = place.call if place.part == FORWARD else None
        side = self.belongs.get(module)
        if side is not None:
            return "" if inside is not None and self.ledger.calls[inside].side == side else side
        if inside is not None:
            return ""
        if module not in self.others:
            wraps = any(part in self.belongs for part in module.modules())
            network = not wraps and next(module.parameters(), None) is not None
            self.others[module] = type(module).__name__ if network else ""
        return self.others[module]

    def call(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """nn.Module.__call__, which books forwards."""

        def watched(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != self.thread:
                return original(module, *args, **kwargs)
            side = self._side(module)
            if not side:
                return original(module, *args, **kwargs)
            if is_functorch_active():
                raise TargetError(
                    f"--step: {type(module).__name__} runs under a transform of torch.func, whose "
                    "operators cannot be told apart"
                )
            given = tensors_in([list(args), kwargs])
            before, height = nodes_of(given), len(self.stack)
            call = self._open(side, module, args, kwargs, bool(given))
            self.stack.append(Frame(Place(FORWARD, call.number)))
            try:
                output = original(module, *args, **kwargs)
            finally:
                del self.stack[height:]
            made = nodes_of(tensors_in(output))
            new = self.graph.label(made, Place(OF_INPUT, call.number), before)
            if call.with_graph:
                call.saved = self.graph.saved_bytes(new, self.weights)
            return output

        return watched

    def _open(self, side: str, module: nn.Module, args: Any, kwargs: Any, given: bool) -> Call:
        parts = list(module.modules())
        inputs: tuple[Any, ...] = ()
        if given:
            inputs = (module.training, torch.is_autocast_enabled(), *map(str, sorted(kwargs)))
            inputs += tuple(map(self._alike, tree_leaves([list(args), kwargs])))
        call = Call(
            side,
            len(self.ledger.calls),
            id(module),
            inputs,
            self._weights(module, parts),
            torch.is_grad_enabled(),
            again=bool(self.running),
            steps_a_norm=any(p.training and is_power_iteration(p) for p in parts),
            counts_statistics=any(map(_is_statistics, parts)),
        )
        self.ledger.calls.append(call)
        return call

    def _weights(self, module: nn.Module, parts: Sequence[nn.Module]) -> tuple[Any, ...]:
        """Parameters, and buffers but for those that a forward moves by itself."""
        kept = (p for p in parts if not (_is_statistics(p) or is_power_iteration(p)))
        buffers = [buffer for part in kept for buffer in part.buffers(recurse=False)]
        moved = (self.moved.get(id(p), 0) for p in module.parameters())
        return *map(self.flow.state, [*module.parameters(), *buffers]), *moved

    def _alike(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.flow.content(value)
        return value if isinstance(value, _PLAIN) else id(value)

    # ---- backwards -----------------------------------------------------------------------------

    def backward(self, original: Callable[..., Any], roots: Any, *args: Any, **kwargs: Any) -> Any:
        """A run of the engine: ``args`` are gradients, retain_graph, create_graph, inputs."""
        if threading.get_ident() != self.thread:  # a proof of the graph cut's
            return original(roots, *args, **kwargs)
        gradients, retain, create = args[:3]
        accumulates = kwargs.get("accumulate_grad", False)
        run = self._run(bool(create))
        self.graph.start(roots)
        leaves = [n.variable for n in walk(nodes_of(roots)) if is_leaf(n)] if create else []
        first, height = len(self.ledger.operators), len(self.stack)
        self.running.append((run, height))
        try:
            results = original(roots, *args, **kwargs)
        finally:
            del self.stack[height:]
            self.running.pop()
        made = [leaf.grad for leaf in leaves] if accumulates else list(results)
        self.graph.end(roots, gradients, made if create else [])
        if accumulates:
            self._note_reached(run, first)
        elif retain and not create:
            self.graph.remember(roots)
        return results

    def _run(self, create_graph: bool) -> Backward:
        """A backward within another, of a reentrant checkpoint, is a part of it."""
        if self.running:
            return self.running[-1][0]
        run = Backward(len(self.ledger.backwards), create_graph)
        self.ledger.backwards.append(run)
        return run

    def _note_reached(self, run: Backward, first: int) -> None:
        for side in (D, G):
            for key in self._gradients(side):
                operator = self.flow.writers.get(key, -1)
                if operator >= first:
                    run.reached.append((side, operator))

    # ---- whose step it is ----------------------------------------------------------------------

    def before_optimizer(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        owners = [side for side in (D, G) if any(id(p) in held for p in self.parameters[side])]
        self.turn = " and ".join(owners) or "neither"
        self.stack.append(Frame(Place(OPTIMIZER)))

    def after_optimizer(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self.ledger.turns.append(self.turn)
        self.stack.pop()
        held = [p for group in optimizer.param_groups for p in group["params"]]
        self.flow.see(p.grad for p in held if p.grad is not None)  # also by kernels nobody sees
        for parameter in held:
            self.moved[id(parameter)] = self.moved.get(id(parameter), 0) + 1

    def finish(self) -> None:
        """When the step is over: what of it was of use."""
        self.graph.clear()
        gc.collect()
        stepped = set(" and ".join(self.ledger.turns).split(" and "))
        self.flow.find_useful(
            {side: self._gradients(side) for side in (D, G)},
            {side: number for side, number in self.before.items() if side in stepped},
        )
        for run in self.ledger.backwards:
            run.used = {s for s, number in run.reached if self.ledger.operators[number].useful}


def watch(sides: Mapping[str, Sequence[nn.Module]], step: Callable[[], object]) -> Ledger:
    """Runs the step, and books every operator."""
    watch = Watch(sides)
    handles = [
        register_optimizer_step_pre_hook(watch.before_optimizer),
        register_optimizer_step_post_hook(watch.after_optimizer),
    ]
    original = nn.Module.__call__
    try:
        nn.Module.__call__ = watch.call(original)  # type: ignore[method-assign]
        with backwards_run_by(watch.backward), watch:
            result = step()
        watch.finish()
        del result  # was alive until here, as what its caller sees
    finally:
        nn.Module.__call__ = original  # type: ignore[method-assign]
        for handle in handles:
            handle.remove()
    return watch.ledger
