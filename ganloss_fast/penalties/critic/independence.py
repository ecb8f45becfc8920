"""Do the samples of a critic interact? Slices of a batch are right only where they do not.

Asked of some rows drawn from the batch, with a random weight for every logit:

1. Is the gradient of half the rows' logits zero at the other half, and the reverse? To the bit.
2. Does it stay zero, to first order, as parameters and samples move? A layer that starts at zero
   and a gate at zero hide an interaction from question 1, and not from this one.
3. Do the same rows, run alone and in other places, have the same logits? Up to rounding, and only
   of a critic that draws no random numbers. Statistics that are detached show here, a division by
   the batch size, and what a closure takes by place, as in ``labels[:len(x)]``.

A critic that was compiled is asked question 3 alone: its graph has no second order.

Where all gradients are zero nothing was to be seen, and the next call asks again. Otherwise calls
2, 4, 8, ... do, of other rows, and the call after a module changed its mode or its submodules.
What stays unseen: an interaction that is zero to second order at the parameters of all these
calls, or between rows that never were drawn together.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import Module

from ganloss_fast._torch import FakeTensor
from ganloss_fast.graph_cut.hooks import is_compiled
from ganloss_fast.graph_cut.rows import walk
from ganloss_fast.penalties.critic.arguments import CriticArguments
from ganloss_fast.penalties.critic.call import CriticCall
from ganloss_fast.penalties.critic.leaf_gradients import gradients_aside, leaves_of
from ganloss_fast.penalties.critic.modules import ModuleStates
from ganloss_fast.penalties.critic.random_state import RandomState
from ganloss_fast.penalties.critic.reach import Reach, owner_and_part
from ganloss_fast.penalties.critic.rounding import differ, tolerance_of
from ganloss_fast.penalties.critic.slices import (
    INTERACTING,
    BatchSlice,
    Runner,
    first_run,
    run_alone,
)


class _Record:
    """When to ask again about one way of calling one critic."""

    def __init__(self) -> None:
        self.calls = 0
        self._due = 1
        self._modules: list[weakref.ref[Module]] = []
        self._fingerprint: object = None

    def is_due(self) -> bool:
        return self.calls >= self._due or self._fingerprint != self._current_fingerprint()

    def keep(self, ran: Sequence[Module], shown: bool) -> None:
        self._due = 2 * self.calls if shown else self.calls + 1
        inside: set[Module] = set()
        self._modules = []
        for module in ran:
            if module not in inside:
                inside.update(module.modules())
                self._modules.append(weakref.ref(module))
        self._fingerprint = self._current_fingerprint()

    def _current_fingerprint(self) -> object:
        tops = [reference() for reference in self._modules]
        return [
            None if top is None else [(id(m), m.training) for m in top.modules()] for top in tops
        ]


_records: weakref.WeakKeyDictionary[Any, dict[tuple[Any, ...], _Record]] = (
    weakref.WeakKeyDictionary()
)


def _record_of(call: CriticCall, way: tuple[Any, ...]) -> _Record:
    owner, part = owner_and_part(call.critic)
    try:
        return _records.setdefault(owner, {}).setdefault((part, *way), _Record())
    except TypeError:  # not hashable, or without weak references
        return _Record()


def refuse_interaction(
    call: CriticCall,
    points: Sequence[Tensor],
    arguments: CriticArguments,
    run: Runner,
    chunk_size: int,
) -> None:
    """Raises if samples are seen to interact. No hook of a parameter runs, and neither ``.grad``,
    buffers nor random numbers change."""
    batch = points[0].shape[0]
    if chunk_size >= batch or points[0].is_meta or isinstance(points[0], FakeTensor):
        return
    record = _record_of(call, (len(points), chunk_size, *arguments.batched))
    record.calls += 1
    if not record.is_due():
        return
    generator = torch.Generator().manual_seed(record.calls)
    size = min(max(chunk_size, 2), batch)
    rows = torch.randperm(batch, generator=generator)[:size].sort().values.tolist()
    question = _Question(call, points, arguments, run, rows, generator)
    shown = question.ask()
    record.keep(question.ran, shown)


class _Question:
    def __init__(
        self,
        call: CriticCall,
        points: Sequence[Tensor],
        arguments: CriticArguments,
        run: Runner,
        rows: list[int],
        generator: Generator,
    ) -> None:
        self._call, self._points, self._arguments, self._run = call, points, arguments, run
        self._rows = rows
        self._generator = generator
        self.ran: list[Module] = []

    def ask(self) -> bool:
        """Whether there was anything to be seen; raises if samples interact."""
        states = ModuleStates()
        random = RandomState(self._points[0].device, Reach(self._call.critic).generators)
        with torch.enable_grad():
            try:
                piece = self._slice(self._rows)
                differentiable = [row for row in piece.rows if row.dtype.is_floating_point]
                inputs = [row.requires_grad_() for row in differentiable]
                logits = first_run(piece, self._arguments, states, self._run, self.ran).logits
                is_random = random.has_moved()
                size = len(self._rows)
                order = torch.randperm(size, generator=self._generator).tolist()
                half, rest = sorted(order[: size // 2]), sorted(order[size // 2 :])
                if any(map(is_compiled, walk([logit.grad_fn for logit in logits]))):
                    shown = True  # its graph serves one backward, of first order: values must do
                else:
                    shown = self._refuse_gradients(logits, inputs, half)
                    shown |= self._refuse_gradients(logits, inputs, rest)
                if not is_random:
                    self._refuse_other_logits(logits, rest if 0 in half else half)
                return shown
            finally:
                random.restore()
                states.unfreeze()
                states.restore()

    def _slice(self, rows: list[int]) -> BatchSlice:
        return BatchSlice(self._call, self._points, self._arguments, rows)

    def _refuse_gradients(
        self, logits: Sequence[Tensor], inputs: Sequence[Tensor], half: list[int]
    ) -> bool:
        size = len(self._rows)
        logits = [logit for logit in logits if logit.requires_grad]
        by_row = [logit for logit in logits if logit.shape[0] == size]
        shown = False
        if by_row:
            total = sum(self._weighted(logit[half]) for logit in by_row)
            shown = self._refuse_influence(total, inputs, half)
        for logit in logits:
            if logit.shape[0] != size:  # who knows whose logits these are: one of them, then
                chosen = int(torch.randint(logit.numel(), (), generator=self._generator))
                shown |= self._refuse_influence(logit.reshape(-1)[chosen], inputs, None)
        return shown

    def _refuse_influence(
        self, total: Any, inputs: Sequence[Tensor], own: list[int] | None
    ) -> bool:
        """Of other rows than a logit's ``own``. None: the one that has any."""
        count = len(self._points)
        gradients = torch.autograd.grad(
            total, inputs, create_graph=True, retain_graph=True, allow_unused=True
        )
        if own is None:
            influence = [g.detach().flatten(1) for g in gradients[:count] if g is not None]
            strength = sum(g.abs().nan_to_num(0.0).sum(1) for g in influence)
            own = [int(strength.argmax())] if isinstance(strength, Tensor) else [0]
        others = [row for row in range(len(self._rows)) if row not in own]
        foreign = [None if g is None else g[others] for g in gradients]
        for k, gradient in enumerate(foreign):
            if gradient is not None and _has_nonzero(gradient):
                raise ValueError(INTERACTING if k < count else self._arguments.how_they_went_in())
        along = [self._weighted(g).double() for g in foreign if g is not None and g.requires_grad]
        if along:
            total = torch.stack(along).sum()
            try:
                moved = gradients_aside(total, leaves_of([total]), retain_graph=True)
            except RuntimeError:  # no second derivative: a penalty that needs one will say so
                moved = ()
            if any(_has_nonzero(gradient) for gradient in moved if gradient is not None):
                raise ValueError(f"{INTERACTING} {self._arguments.how_they_went_in()}".strip())
        return any(_has_nonzero(g[own]) for g in gradients[:count] if g is not None)

    def _refuse_other_logits(self, logits: Sequence[Tensor], half: list[int]) -> None:
        """``half`` is without the first row: alone, each of its rows has another place."""

        def alone() -> list[Tensor]:
            piece = self._slice([self._rows[k] for k in half])
            return run_alone(piece, self._arguments, self._run).logits

        size = len(self._rows)
        tolerance = tolerance_of(logits, self._points)
        try:
            found = alone()
            apart = any(
                whole.shape[0] == size
                and part.shape == whole[half].shape
                and differ(whole[half], part, tolerance)
                for whole, part in zip(logits, found)
            )
            if not apart or any(
                differ(one, other, tolerance) for one, other in zip(found, alone())
            ):
                return  # alike; or random by means that torch does not know of
        except (ValueError, RuntimeError):  # so few samples do not run: nothing to compare
            return
        raise ValueError(f"{INTERACTING} {self._arguments.how_they_went_in()}".strip())

    def _weighted(self, values: Tensor) -> Tensor:
        weights = torch.rand(values.shape, generator=self._generator) + 0.5
        return (values * weights.to(values.device, values.dtype)).sum()


def _has_nonzero(gradient: Tensor) -> bool:
    if gradient.is_sparse:
        gradient = gradient.coalesce().values()
    return bool(gradient.detach().nan_to_num(nan=0.0).any())
