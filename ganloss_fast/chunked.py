"""A penalty in slices of the batch, for resolutions at which the whole batch does not fit.

Each slice's graph is built, differentiated and dropped before the next, so the memory is that of
one slice plus one copy of the gradients. The FLOPs are those of the penalty in one piece; a
critic's first call adds a probe, one forward and first-order backward of a slice.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ganloss_fast.checks import check_integer
from ganloss_fast.critic_arguments import CriticArguments
from ganloss_fast.critic_gradient import (
    CriticCall,
    CriticRun,
    explaining_missing_derivatives,
    gradients_of,
    is_functional,
    run_critic,
    scales,
)
from ganloss_fast.critic_modules import ModuleStates, before_first_run, uses_batch_statistics
from ganloss_fast.graph_cut_hooks import walk
from ganloss_fast.norm_penalty import NormPenalty
from ganloss_fast.terms import compute_dtype

INTERACTING = (
    "chunk_size: the samples of this critic interact (batch normalisation, mini-batch standard "
    "deviation, a mean over the batch), so slices of the batch would give another penalty. "
    "Compute it in one piece."
)


Runner = Callable[[CriticCall, Sequence[Tensor]], CriticRun]


class _Precomputed(torch.autograd.Function):
    """A value whose gradients are known already."""

    @staticmethod
    def forward(ctx, value, gradients, *tensors):
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, incoming):
        scaled = [gradient * incoming.to(gradient.dtype) for gradient in ctx.gradients]
        return (None, None, *scaled)


class _Gradients:
    """Sums over the slices, by tensor."""

    def __init__(self) -> None:
        self._sums: dict[int, tuple[Tensor, Tensor]] = {}

    def add(self, tensor: Tensor, gradient: Tensor | None, part: slice | None = None) -> None:
        """Adds a gradient of ``tensor``, or of ``tensor[part]``."""
        if part is not None:
            _, total = self._sums.setdefault(id(tensor), (tensor, torch.zeros_like(tensor)))
            if gradient is not None:
                total[part].add_(gradient)
        elif gradient is not None and id(tensor) in self._sums:
            self._sums[id(tensor)][1].add_(gradient)
        elif gradient is not None:
            self._sums[id(tensor)] = (tensor, gradient.clone())

    def attached_to(self, value: Tensor) -> Tensor:
        if not self._sums:
            return value
        tensors, gradients = zip(*self._sums.values())
        return _Precomputed.apply(value, gradients, *tensors)


@dataclasses.dataclass(frozen=True)
class _Detached:
    """A leaf in a slice's graph that stands for ``origin``, or for ``origin[part]``."""

    origin: Tensor
    part: slice | None
    leaf: Tensor


class _Slice:
    """The samples and arguments of one slice, cut off from the graphs that they came with: those
    would be walked through once for every slice."""

    def __init__(
        self, call: CriticCall, points: Sequence[Tensor], arguments: CriticArguments, part: slice
    ) -> None:
        self.part = part
        self.detached: list[_Detached] = []
        self.rows: list[Tensor] = []  # what was sliced: points, then arguments
        self.points = [self._cut(point, part) for point in points]
        args, kwargs = arguments.mapped(lambda v, batched: self._cut(v, part if batched else None))
        self.call = dataclasses.replace(call, args=args, kwargs=kwargs)

    def _cut(self, value: Any, part: slice | None) -> Any:
        leaf = value
        if part is not None:
            leaf = value[part].detach()
            self.rows.append(leaf)
        if isinstance(value, Tensor) and value.requires_grad:
            leaf = leaf.detach().requires_grad_()
            self.detached.append(_Detached(value, part, leaf))
        return leaf


def check_chunk_size(chunk_size: object) -> int:
    size = check_integer("chunk_size", chunk_size)
    if is_functional():
        raise RuntimeError(
            "chunk_size: not under torch.compile or torch.func; compile the step without it."
        )
    return size


def penalty_in_chunks(
    points: Sequence[Tensor], call: CriticCall, penalty: NormPenalty, chunk_size: int
) -> Tensor:
    """The penalty at ``points``, ``chunk_size`` samples at a time."""
    if penalty.reduction not in ("mean", "sum") or penalty.norm == "batch":
        raise ValueError(
            'chunk_size: slices can be added up for reduction "mean" or "sum" and norm "sample" '
            f'or "channel"; got reduction {penalty.reduction!r} and norm {penalty.norm!r}.'
        )

    def of_slice(own: CriticCall, run: CriticRun, part: slice, share: float) -> Tensor:
        result = gradients_of(own, *run)
        grads = result.gradients
        if call.logit_reduction == "mean":  # of the slice's logits; the batch has more
            grads = [gradient * share for gradient in grads]
        value = result.signalled(penalty.of_slice(points, part)(grads))
        return value * share if penalty.reduction == "mean" else value

    return sum_over_chunks(points, call, chunk_size, run_critic, of_slice)


def sum_over_chunks(
    points: Sequence[Tensor],
    call: CriticCall,
    chunk_size: int,
    run: Runner,
    of_slice: Callable[[CriticCall, CriticRun, slice, float], Tensor],
) -> Tensor:
    """Sum over slices of ``of_slice(call, run(call, points), part, share of the batch)``."""
    chunk_size = check_chunk_size(chunk_size)
    batch = points[0].shape[0]
    arguments = CriticArguments(call.args, call.kwargs, batch, call.batch_args)
    _refuse_interaction(call, points, arguments, run, min(max(chunk_size, 2), batch))
    gradients = _Gradients()
    states = ModuleStates()

    def value_of(part: slice) -> Tensor:  # a function: what it builds goes when it returns
        piece = _Slice(call, points, arguments, part)
        ran = _first_run(piece, states, run) if part.start == 0 else run(piece.call, piece.points)
        value = of_slice(piece.call, ran, part, (part.stop - part.start) / batch)
        if torch.is_grad_enabled() and value.requires_grad:
            _add_gradients(value, piece, ran.hidden, gradients)
        return value.detach()

    total = torch.zeros((), dtype=compute_dtype(points[0].dtype), device=points[0].device)
    try:
        for start in range(0, batch, chunk_size):
            total = total + value_of(slice(start, min(start + chunk_size, batch)))
    finally:
        states.unfreeze()
    return gradients.attached_to(total)


def _first_run(piece: _Slice, states: ModuleStates, run: Runner) -> CriticRun:
    """Runs the critic, refuses it where slices would see different ones, and freezes its spectral
    norms: for the other slices, and for a checkpoint that runs this slice again."""

    def see(module: torch.nn.Module) -> None:
        if uses_batch_statistics(module):
            raise ValueError(INTERACTING)
        states.see(module)

    try:
        with before_first_run(piece.call.critic, see):
            result = run(piece.call, piece.points)
        if moved := states.moved():
            raise ValueError(
                f"chunk_size: buffers of the critic change on every forward ({', '.join(moved)}), "
                "so slices would see different critics. Put these modules in evaluation mode, or "
                "compute in one piece."
            )
    except Exception:
        states.restore()
        raise
    states.freeze()
    return result


def _add_gradients(
    penalty: Tensor, piece: _Slice, hidden: Sequence[Tensor], gradients: _Gradients
) -> None:
    stand_ins = {id(stand_in.leaf) for stand_in in piece.detached}.union(map(id, hidden))
    nodes = walk([penalty.grad_fn])
    leaves = [node.variable for node in nodes if hasattr(node, "variable")]
    leaves = [leaf for leaf in leaves if id(leaf) not in stand_ins]
    scale, inverse = scales(piece.call.inv_scale, piece.points[0])
    with explaining_missing_derivatives():
        found = torch.autograd.grad(
            penalty if scale is None else penalty * scale,
            [*leaves, *(stand_in.leaf for stand_in in piece.detached)],
            allow_unused=True,
            retain_graph=True,  # a part may be shared: torch.nn.utils.parametrize.cached()
        )
    if inverse is not None:
        found = tuple(
            None if g is None else (g.to(inverse.dtype) * inverse).to(g.dtype) for g in found
        )
    for leaf, gradient in zip(leaves, found):
        gradients.add(leaf, gradient)
    for stand_in, gradient in zip(piece.detached, found[len(leaves) :]):
        gradients.add(stand_in.origin, gradient, stand_in.part)


# For each critic, the ways of calling it in which its samples were seen not to interact.
_independent: weakref.WeakKeyDictionary[Any, set[tuple]] = weakref.WeakKeyDictionary()


def _refuse_interaction(
    call: CriticCall,
    points: Sequence[Tensor],
    arguments: CriticArguments,
    run: Runner,
    size: int,
) -> None:
    """Asks whether the first sample's logits depend on other rows; once for each critic object."""
    way = (getattr(call.critic, "training", None), *arguments.batched)
    try:
        known = _independent.setdefault(call.critic, set())
    except TypeError:  # not hashable, or without weak references
        known = set()
    if way in known or size < 2:
        return
    piece = _Slice(call, points, arguments, slice(0, size))
    rows = [row.requires_grad_() for row in piece.rows if row.dtype.is_floating_point]
    states = ModuleStates()
    device = points[0].device
    devices = [] if device.type == "cpu" else [device]
    device_type = "cuda" if device.type == "cpu" else device.type
    with torch.enable_grad(), torch.random.fork_rng(devices, device_type=device_type):
        try:
            logits = _first_run_alone(piece, states, run, size, arguments)
            if any(logit.dim() == 0 for logit in logits):
                raise ValueError(
                    "chunk_size: the critic returns a 0-d output, of which slices cannot know how "
                    "it joins the samples. Return one logit or more for each sample."
                )
            first = [logit[:1].sum() for logit in logits if logit.requires_grad]
            gradients = torch.autograd.grad(first, rows, allow_unused=True) if first else ()
        finally:
            states.unfreeze()
            states.restore()
    for k, gradient in enumerate(gradients):
        if gradient is not None and gradient[1:].nan_to_num(nan=0.0).any():
            raise ValueError(INTERACTING if k < len(points) else _not_batched(arguments))
    known.add(way)


def _first_run_alone(
    piece: _Slice, states: ModuleStates, run: Runner, size: int, arguments: CriticArguments
) -> list[Tensor]:
    try:
        return _first_run(piece, states, run).logits
    except (IndexError, RuntimeError) as error:
        raise ValueError(
            f"chunk_size: the critic does not run on the first {size} samples alone ({error}). "
            + _not_batched(arguments)
        ) from error


def _not_batched(arguments: CriticArguments) -> str:
    sliced = [name for name, batched in zip(arguments.names, arguments.batched) if batched]
    if not sliced:
        return ""
    return (
        f"batch_args: {', '.join(sliced)} was sliced with the batch, as it has as many rows. If "
        "that is wrong, name those arguments that hold one row for each sample in batch_args."
    )
