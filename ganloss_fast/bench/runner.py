"""The one runner: builds the contenders of a workload, checks that they agree, times them in turns.

A contender that fails, or runs out of memory, costs its own row and no other.
"""

from __future__ import annotations

import contextlib
import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ganloss_fast import backends
from ganloss_fast.bench import agreement, bandwidth, machine, memory, timing
from ganloss_fast.bench.budget import NOT_MEASURED, Budget
from ganloss_fast.bench.cuda_graph import capture
from ganloss_fast.bench.results import FAILED, Row
from ganloss_fast.bench.timing import ERRORS, Clock, Timing
from ganloss_fast.bench.workload import (
    ALL,
    BUILT_IN,
    COMPILE,
    EAGER,
    OURS,
    REFERENCE,
    Contender,
    Workload,
)

CAPTURED = (f"{OURS}, CUDA graph", f"{EAGER}, CUDA graph")


@dataclass(frozen=True)
class Plan:
    """How to measure."""

    device: torch.device
    rounds: int = timing.ROUNDS
    most_seconds: float = 10.0  # of one workload
    most_minutes: float = math.inf  # of the run
    with_compile: bool = True
    with_reference: bool = True
    only_contenders: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Measured:
    """One contender: its time and its distance from the code as written, or why there is none."""

    status: str
    timing: Timing | None = None
    difference: float | None = None
    observed: memory.Observed | None = None


# ---- failures ----------------------------------------------------------------------------------


def reason(error: BaseException) -> str:
    """One line of an error for the table."""
    text = str(error).strip()
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in text:
        return FAILED + "out of memory"
    if "InvalidCxxCompiler" in repr(error) or "No working C++ compiler" in text:
        return FAILED + "torch.compile found no C++ compiler; install g++, or run --no-compile"
    line = text.splitlines()[0] if text else ""
    return f"{FAILED}{type(error).__name__}: {line}"[:200]


# ---- contenders --------------------------------------------------------------------------------


def chosen(workload: Workload, plan: Plan) -> dict[str, Contender]:
    """The contenders of a workload that the plan asks for, and what a GPU adds."""
    torch.compiler.reset()  # none meets the recompile limit; what is on disk is not compiled again
    torch.manual_seed(plan.seed)
    found = dict(workload.build(plan.device))
    if not plan.with_compile:
        found.pop(COMPILE, None)
    if not plan.with_reference:
        found.pop(REFERENCE, None)
    if plan.device.type == "cuda" and OURS in found:
        found.update(_of_a_gpu(found))
    if plan.only_contenders:
        kept = {*plan.only_contenders, OURS, EAGER}  # the two that every ratio is between
        found = {name: work for name, work in found.items() if name in kept}
    return found


def _of_a_gpu(found: Mapping[str, Contender]) -> dict[str, Contender]:
    """Every backend that serves the device, and CUDA graphs of the first contenders."""
    more: dict[str, Contender] = {}
    for name in ("native", "triton"):
        if backends.why_not(name, "cuda") is None:
            more[f"{OURS}, {name}"] = _on_backend(name, found[OURS])
    for name, captured in zip((OURS, EAGER), CAPTURED):
        if name in found:
            more[captured] = _captured(found[name])
    return more


def _on_backend(backend: Any, work: Contender) -> Contender:
    def served() -> Sequence[Tensor]:
        with backends.use_backend(backend):
            return work()

    return served


def _captured(work: Contender) -> Contender:
    """The work as a CUDA graph, captured at its first call."""
    captures: list[tuple[torch.cuda.CUDAGraph, Sequence[Tensor]]] = []

    def replay() -> Sequence[Tensor]:
        if not captures:
            captures.append(capture(work))
        graph, results = captures[0]
        graph.replay()
        return results

    return replay


# ---- one workload ------------------------------------------------------------------------------


def without_memory(workload: Workload, device: torch.device) -> dict[str, Measured]:
    """The contenders that need more than there is: where memory is overcommitted, to try is to be
    killed."""
    free = machine.free_memory(device)
    if free is None:
        return {}
    return {
        name: Measured(
            f"{NOT_MEASURED}needs {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free"
        )
        for name, needed in workload.needs.items()
        if needed > free
    }


def measure(
    workload: Workload, plan: Plan, clock: Clock, budget: Budget | None = None
) -> dict[str, Measured]:
    """Every contender of the workload, by name; without a budget, however long it takes."""
    budget = budget or Budget()
    found = without_memory(workload, plan.device)
    if workload.needs and len(found) == len(workload.needs):
        return found
    try:
        contenders = chosen(workload, plan)
    except ERRORS as error:
        return {ALL: Measured(reason(error))}
    works = {name: work for name, work in contenders.items() if name not in found}
    results, once = _first_results(works, found, budget)
    if timing.LEAST_ROUNDS * once > budget.left:
        found |= {name: Measured(budget.no_time()) for name in results}
        return {name: found[name] for name in contenders}
    differences, wrong = _judged(results, workload.tolerance)
    found |= wrong
    works = {name: contenders[name] for name in results if name not in found}
    del results
    gc.collect()
    shorter = replace(plan, most_seconds=min(plan.most_seconds, budget.share()))
    found |= _in_turns(works, differences, shorter, clock)
    return {name: found[name] for name in contenders}


def _first_results(
    works: Mapping[str, Contender], found: dict[str, Measured], budget: Budget
) -> tuple[dict[str, Sequence[Tensor]], float]:
    """Calls each once: what they return, and the seconds of it all without compiling. Whatever
    fails, or has no time, goes to ``found``."""
    results: dict[str, Sequence[Tensor]] = {}
    seconds = 0.0
    for name, work in works.items():
        if budget.over:
            found[name] = Measured(budget.no_time())
            continue
        if name == COMPILE and not budget.may_compile():
            found[name] = Measured(budget.no_time_to_compile())
            continue
        began = time.monotonic()
        try:
            results[name] = [result.detach().clone() for result in work()]
        except ERRORS as error:
            found[name] = Measured(reason(error))
        taken = time.monotonic() - began
        if name == COMPILE:
            budget.compiling.append(taken)
        else:
            seconds += taken
    return results, seconds


def _in_turns(
    works: dict[str, Contender], differences: Mapping[str, float], plan: Plan, clock: Clock
) -> dict[str, Measured]:
    found: dict[str, Measured] = {}
    while works:
        try:
            timings = timing.interleave(works, clock, plan.rounds, plan.most_seconds)
            observed = {name: _observed(name, work, plan.device) for name, work in works.items()}
        except timing.ContenderFailed as failure:  # the others take their turns again
            found[failure.name] = Measured(reason(failure.error))
            del works[failure.name]
            continue
        for name in works:
            found[name] = Measured("measured", timings[name], differences.get(name), observed[name])
        break
    return found


def _observed(name: str, work: Contender, device: torch.device) -> memory.Observed:
    try:
        return memory.observe(work, device)
    except ERRORS as error:
        raise timing.ContenderFailed(name, error) from error


def _judged(
    results: Mapping[str, Sequence[Tensor]], tolerance: float
) -> tuple[dict[str, float], dict[str, Measured]]:
    """How far each is from the code as written, and those that are too far; where that did not
    run, from ours."""
    judge = EAGER if EAGER in results else OURS
    differences: dict[str, float] = {}
    wrong: dict[str, Measured] = {}
    for name, found in results.items():
        if judge not in results or name in (judge, BUILT_IN):
            continue
        try:
            apart, why = agreement.disagreement(results[judge], found, tolerance)
        except Exception as error:  # such as out of memory, or another device
            wrong[name] = Measured(reason(error))
            continue
        differences[name] = apart
        if why is not None:
            wrong[name] = Measured(f"{FAILED}differs from {judge} {why}", None, apart)
    return differences, wrong


# ---- rows --------------------------------------------------------------------------------------


def environment(plan: Plan, clock: Clock) -> dict[str, Any]:
    """What every row says about where it was taken; the speed of a copy comes beside it."""
    facts = machine.facts(plan.device)
    kept = ("cpu", "gpu", "torch", "python", "ganloss_fast", "git_revision", "date", "threads")
    return {
        **{name: facts[name] for name in kept if name in facts},
        "device": plan.device.type,
        "clock": clock.name,
        "seed": plan.seed,
    }


def _served_by(contender: str, device: torch.device) -> str:
    if contender in (EAGER, COMPILE, BUILT_IN, ALL):
        return ""
    if contender == REFERENCE:
        return "reference"
    for name in ("native", "triton"):
        if contender == f"{OURS}, {name}":
            return name
    return machine.backend(device)


def rows(workload: Workload, found: Mapping[str, Measured], facts: Mapping[str, Any]) -> list[Row]:
    """The rows of one workload."""
    device = torch.device(facts["device"])
    baseline, copy = found[EAGER].timing if EAGER in found else None, facts["copy_GB_per_s"]
    result = []
    for name, measured in found.items():
        row = Row(
            workload=workload.name,
            section=workload.section,
            contender=name,
            backend=_served_by(name, device),
            direction=workload.direction,
            shapes=workload.shapes,
            dtype=workload.dtype,
            status=measured.status,
            bytes=workload.bytes,
            curve=workload.curve.name if workload.curve else None,
            curve_axis=workload.curve.axis if workload.curve else None,
            curve_at=workload.curve.at if workload.curve else None,
            difference=measured.difference,
            **facts,
        )
        if measured.timing is not None and measured.observed is not None:
            times = _times(workload, measured.timing, measured.observed, baseline)
            row = replace(row, **times)
            if row.bytes and row.GB_per_s and bandwidth.is_beyond_cache(row.bytes, device):
                row = replace(row, of_copy_bandwidth=round(row.GB_per_s / copy, 4))
        result.append(row)
    return result


def _times(
    workload: Workload,
    taken: Timing,
    observed: memory.Observed,
    baseline: Timing | None,
) -> dict[str, Any]:
    p50 = taken.seconds
    times: dict[str, Any] = {
        "p50_us": round(1e6 * p50, 3),
        "operators": observed.operators,
        "peak_bytes": observed.peak_bytes,
        "rounds": len(taken.rounds),
    }
    if not taken.too_few:
        p20, _, p80 = taken.spread()
        times |= {"p20_us": round(1e6 * p20, 3), "p80_us": round(1e6 * p80, 3)}
    if workload.bytes is not None:
        times["GB_per_s"] = round(workload.bytes / p50 / 1e9, 2)
    if baseline is not None:
        low, high = baseline.interval_of_ratio(taken)
        times["ratio"] = round(baseline.ratio_to(taken), 4)
        times["ratio_low"], times["ratio_high"] = round(low, 4), round(high, 4)
    return times


def run(
    workloads: Sequence[Workload],
    plan: Plan,
    before_each: Callable[[int, Workload, float], None] = lambda done, workload, seconds: None,
) -> Iterator[list[Row]]:
    """Measures one workload after the other, and gives the rows of each as soon as it is done.

    ``before_each`` is told how many are done, which one comes, and the seconds that are left."""
    budget = Budget(plan.most_minutes, len(workloads))
    clock = timing.clock_of(plan.device)
    facts, copies = environment(plan, clock), bandwidth.Copies(plan.device)
    for done, workload in enumerate(workloads):
        before_each(done, workload, budget.expected())
        began = time.monotonic()
        if budget.over:
            found = {ALL: Measured(budget.no_time())}
            yield rows(workload, found, {**facts, **copies.facts(clock)})
            continue
        with on_threads(workload.threads):
            own = clock if workload.threads is None else timing.clock_of(plan.device, wall=True)
            copy = copies.facts(own)
            found = measure(workload, plan, own, budget)
        budget.taken.append(time.monotonic() - began)
        threads = workload.threads or facts["threads"]
        yield rows(workload, found, {**facts, **copy, "clock": own.name, "threads": threads})


@contextlib.contextmanager
def on_threads(count: int | None) -> Iterator[None]:
    """As many threads, and then as many as before; None for those that there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
