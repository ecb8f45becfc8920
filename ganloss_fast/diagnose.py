"""Why a critic's gradient penalty gets cheaper by the graph cut, or does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from ganloss_fast._torch import TorchDispatchMode, without_onednn
from ganloss_fast.flops import CONVOLUTIONS, flops_of, is_uncounted
from ganloss_fast.graph_cut import second_order
from ganloss_fast.graph_cut.hooks import Gradients, row_of
from ganloss_fast.graph_cut.rows import Node, walk
from ganloss_fast.graph_cut.second_order import GRAPH_CUT_CHOICES, GraphCut
from ganloss_fast.penalties.critic.call import (
    Critic,
    CriticArgs,
    CriticCall,
    Differentiation,
    critic_call,
)
from ganloss_fast.penalties.critic.gradient import (
    CriticRun,
    explaining_missing_derivatives,
    gradients_of,
    run_critic,
)
from ganloss_fast.penalties.critic.leaf_gradients import gradients_aside, leaves_of
from ganloss_fast.penalties.critic.modules import ModuleStates, before_first_run
from ganloss_fast.penalties.points import Samples, as_samples
from ganloss_fast.penalties.shared_backward import shared_gradients


class CountFlops(TorchDispatchMode):
    """FLOPs of convolutions and matrix products, and how many convolutions there were. (torch's
    FlopCounterMode refuses an inner autograd.grad with a leaf input.)"""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0
        self.convolutions = 0
        self.uncounted: set[str] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.convolutions += func.overloadpacket in CONVOLUTIONS
        self.total += flops_of(func, args, kwargs or {}, result)[0]
        if is_uncounted(func):
            self.uncounted.add(func.overloadpacket.__name__)
        return result


@dataclass(frozen=True)
class GenuineLayer:
    """A second-order edge that carries data: ``module`` as the critic names it, or "" where no
    module's input matches (a functional call); ``operation``, its autograd node."""

    module: str
    operation: str


@dataclass(frozen=True)
class Diagnosis:
    """What :func:`diagnose` found; ``str()`` of it is what it prints.

    ``stock`` and ``cut`` are FLOPs of a penalty step in units of one forward pass; ``uncounted``
    are operations in that forward pass of which torch does not know the FLOPs. ``why_not_shared``
    says why :func:`logits_and_penalty` is no cheaper for this critic; it is empty where it is.
    ``convolutions`` are the calls in a step with ``graph_cut="auto"``, and with ``"fast"``.
    """

    edges_cut: int
    nodes: int
    forward_flops: int
    stock: float
    cut: float
    genuine: tuple[GenuineLayer, ...]
    uncounted: tuple[str, ...] = ()
    why_not_shared: str = ""
    convolutions: tuple[int, int] = (0, 0)

    def __str__(self) -> str:
        lines = [
            f"Penalty step: {self.stock:.2f}x a forward pass in stock autograd, "
            f"{self.cut:.2f}x with the graph cut ({self.edges_cut} edges cut, {self.nodes} nodes).",
        ]
        if self.genuine:
            lines.append("These keep the second-order branch of everything before them:")
            lines += [f"  {layer.operation:40} {layer.module}" for layer in self.genuine]
        else:
            lines.append("No layer keeps the second-order branch.")
        if self.why_not_shared:
            lines.append(f"logits_and_penalty is right and no cheaper: {self.why_not_shared}.")
        else:
            lines.append("logits_and_penalty takes a third off a step that shares its logits.")
        auto, fast = self.convolutions
        if auto > 1.25 * fast:  # a weight gradient in groups is one convolution for each
            lines.append(
                f'graph_cut="fast" needs {fast} convolutions a step where "auto" needs {auto}: the '
                "weight gradients of its groups, equal to rounding."
            )
        if self.uncounted:
            names = ", ".join(self.uncounted)
            lines.append(f"Not in these numbers, as torch has no FLOP formula for it: {names}.")
        return "\n".join(lines)


def _inner_gradient(call: CriticCall, points: Sequence[Tensor]) -> tuple[CriticRun, list[Tensor]]:
    """The gradient with its whole graph: ``call`` has no graph cut."""
    run = run_critic(call, [point.detach() for point in points])
    return run, gradients_of(call, *run).gradients


class _Step(NamedTuple):
    """What a penalty step took: counts, edges cut and nodes seen."""

    counter: CountFlops
    edges: int
    nodes: int


def _penalty_step(call: CriticCall, points: Sequence[Tensor], graph_cut: GraphCut) -> _Step:
    edges = nodes = 0
    with torch.enable_grad(), CountFlops() as counter:
        run, grads = _inner_gradient(call, points)
        if graph_cut != "off":
            grads, edges, nodes, _ = second_order.cut(
                grads, "stock", (), run.inputs, fast_weights=graph_cut == "fast"
            )
        penalty = torch.stack([g.float().square().sum() for g in grads]).sum()
        _discarding_backward(penalty)
    return _Step(counter, edges, nodes)


def _discarding_backward(penalty: Tensor) -> None:
    """Backward into every leaf, without touching anybody's .grad or hooks."""
    with explaining_missing_derivatives():
        gradients_aside(penalty, leaves_of([penalty]))


class _ModuleNames:
    """Which module made an autograd node, and which module's input a node's result is."""

    def __init__(self) -> None:
        self.makers: dict[Node, str] = {}
        self.takers: dict[Node, str] = {}

    def watch(self, critic: Callable[..., Any]) -> list[RemovableHandle]:
        """Hooks that fill the tables in the critic's next forward."""
        if not isinstance(critic, torch.nn.Module):
            return []
        return [
            module.register_forward_hook(self._record(f"{name} ({type(module).__name__})"))
            for name, module in critic.named_modules()
            if not list(module.children())
        ]

    def _record(self, label: str) -> Callable[[torch.nn.Module, tuple[Any, ...], Any], None]:
        def hook(module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> None:
            inputs = {a.grad_fn for a in args if isinstance(a, Tensor)}
            for node in inputs:
                self.takers.setdefault(node, label)
            stack = [output.grad_fn] if isinstance(output, Tensor) else []
            while stack:
                node = stack.pop()
                if node is not None and node not in inputs and node not in self.makers:
                    self.makers[node] = label
                    stack.extend(following for following, _ in node.next_functions)

        return hook

    def of_edge(self, node: Node, result: int) -> str:
        """The module to blame for a second-order edge to a node's result. Result 0 is an
        activation, on which the module that takes it depends; others are statistics."""
        if result == 0 and node in self.takers:
            return self.takers[node]
        return self.makers.get(node, "")


def _nodes_of_activations(logits: Sequence[Tensor], inputs: Sequence[Tensor]) -> set[Node]:
    """The nodes of the forward graph that depend on the inputs, not only on parameters."""
    parents: dict[Node, list[Node]] = {}
    stack: list[Node] = []
    for node in walk([logit.grad_fn for logit in logits]):
        for following, _ in node.next_functions:
            if following is not None:
                parents.setdefault(following, []).append(node)
        if any(getattr(node, "variable", None) is x for x in inputs):
            stack.append(node)
    dependent: set[Node] = set()
    while stack:
        node = stack.pop()
        if node not in dependent:
            dependent.add(node)
            stack.extend(parents.get(node, ()))
    return dependent


def _genuine_layers(call: CriticCall, points: Sequence[Tensor]) -> tuple[GenuineLayer, ...]:
    """Edges from the inner gradient's graph to activations that carry a defined gradient."""
    names = _ModuleNames()
    handles = names.watch(call.critic)
    try:
        with torch.enable_grad():
            run, grads = _inner_gradient(call, points)
    finally:
        for handle in handles:
            handle.remove()
    activations = _nodes_of_activations(run.logits, run.inputs)
    found: dict[GenuineLayer, None] = {}

    def watch(node: Node, edges: Sequence[int]) -> Callable[[Gradients, Gradients], None]:
        def hook(grad_inputs: Gradients, grad_outputs: Gradients) -> None:
            for k in edges:
                if grad_inputs[k] is not None:
                    module = names.of_edge(*node.next_functions[k])
                    found[GenuineLayer(module, node.name())] = None

        return hook

    for node in walk([grad.grad_fn for grad in grads]):
        row = row_of(node)
        edges = [
            k
            for k, (target, _) in enumerate(node.next_functions)
            if target in activations and (row is None or k != row.edge)
        ]
        if node not in activations and edges:
            node.register_hook(watch(node, edges))
    _discarding_backward(torch.stack([g.float().square().sum() for g in grads]).sum())
    return tuple(found)


def _counted(
    call: CriticCall, points: Sequence[Tensor]
) -> tuple[CountFlops, dict[GraphCut, _Step]]:
    """The forward pass; steps by graph cut."""
    # Without oneDNN, whose recurrent layers are one kernel, computed again in their backward: the
    # same arithmetic in float32 and float64. With gradients on, as it trains: without, layers take
    # fused kernels that count as nothing.
    with without_onednn():
        with torch.enable_grad(), CountFlops() as forward:
            run_critic(call, [point.detach() for point in points])
        return forward, {how: _penalty_step(call, points, how) for how in GRAPH_CUT_CHOICES}


def _why_not_shared(call: CriticCall, points: Sequence[Tensor]) -> str:
    with torch.enable_grad():
        run = run_critic(call, [point.detach() for point in points])
        return shared_gradients(call, run.logits, run.inputs).refusal


def diagnose(
    critic: Critic,
    inputs: Samples,
    *,
    critic_args: CriticArgs = (),
    quiet: bool = False,
) -> Diagnosis:
    """Prints what the graph cut saves for a critic, and which layers stand in its way.

    Runs the critic six times; its buffers are put back and no ``.grad`` is touched. A layer
    with a genuine second-order branch (normalisation, GELU, mini-batch standard deviation)
    keeps that branch for everything before it, so one near the output leaves no gain::

        >>> diagnose(critic, torch.randn(4, 3, 64, 64))
        Penalty step: 6.00x a forward pass in stock autograd, 4.00x with the graph cut (...).
        No layer keeps the second-order branch.
        logits_and_penalty takes a third off a step that shares its logits.

    Args:
        critic: see :func:`gradient_penalty`.
        inputs: samples [B, ...], or a tuple of inputs; the batch size matters little.
        critic_args: further arguments of the critic: a tuple, or a dict by name.
        quiet: return without printing.

    Returns:
        :class:`Diagnosis`, with the FLOPs (convolutions and matrix products) and the layers.

    Raises:
        As :func:`gradient_penalty`, for critics that cannot be penalised.
    """
    points = as_samples("inputs", inputs)
    call = critic_call(critic, critic_args, how=Differentiation(graph_cut="off"))
    states = ModuleStates()
    try:
        with before_first_run(call.critic, states.see):
            genuine = _genuine_layers(call, points)
        counter, steps = _counted(call, points)
        why_not_shared = _why_not_shared(replace(call, how=Differentiation()), points)
    finally:
        states.restore()
    forward = max(counter.total, 1)
    stock, cut, fast = (steps[how] for how in ("off", "auto", "fast"))
    diagnosis = Diagnosis(
        edges_cut=cut.edges,
        nodes=cut.nodes,
        forward_flops=forward,
        stock=stock.counter.total / forward,
        cut=cut.counter.total / forward,
        genuine=genuine,
        uncounted=tuple(sorted(counter.uncounted)),
        why_not_shared=why_not_shared,
        convolutions=(cut.counter.convolutions, fast.counter.convolutions),
    )
    if not quiet:
        print(diagnosis)
    return diagnosis
