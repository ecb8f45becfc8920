"""The command: ``ganloss-bench``, ``python -m ganloss_fast.bench``; ``python -m benchmarks`` in a
checkout, which adds the workloads that need one."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ganloss_fast import backends
from ganloss_fast.bench import catalogue, places, runner, timing
from ganloss_fast.bench import compare as comparing
from ganloss_fast.bench import gate as gating
from ganloss_fast.bench.arguments import (
    MOST_MINUTES,
    QUICK_MINUTES,
    QUICK_TRAIN_SECONDS,
    TRAIN_SECONDS,
    parser,
)
from ganloss_fast.bench.large import CHUNKED
from ganloss_fast.bench.profile import findings, shown, target
from ganloss_fast.bench.results import ResultError, ResultFiles, Row, latest, read_rows
from ganloss_fast.bench.tables import listing, measured_table, minutes_text, trained_table
from ganloss_fast.bench.train import data, side_by_side
from ganloss_fast.bench.train.runs import RUNS
from ganloss_fast.bench.workload import (
    ALL,
    BUILT_IN,
    COMPILE,
    DROP_IN,
    EAGER,
    HELPERS,
    OURS,
    REFERENCE,
    Workload,
)

OK, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130
QUICK_ROUNDS, QUICK_SECONDS = 9, 0.5
CONTENDERS = (OURS, REFERENCE, CHUNKED, EAGER, COMPILE, BUILT_IN, DROP_IN, HELPERS)
ON_BACKENDS = {f"{OURS}, native": "native", f"{OURS}, triton": "triton"}
ON_A_GPU = (*ON_BACKENDS, *runner.CAPTURED)


class Misuse(Exception):
    """Something that the caller can put right; the text is one for people."""


MISUSES = (
    Misuse,
    ResultError,
    catalogue.NothingChosen,
    catalogue.NothingQuick,
    target.TargetError,
    data.BadFolder,
)


# ---- list, run, compare ------------------------------------------------------------------------


def list_workloads(
    options: argparse.Namespace, workloads: Sequence[Workload], console: Console
) -> int:
    console.print(listing(catalogue.choose(workloads, options.only, options.quick)))
    console.print(f"Contenders: {'; '.join(CONTENDERS)}; on a GPU also {'; '.join(ON_A_GPU)}")
    return OK


def _check_contenders(asked: Sequence[str], options: argparse.Namespace) -> None:
    """Before anything is measured: what is no name, or cannot be had with the other arguments.

    Raises:
        Misuse: for the first such.
    """
    without_compile = "--quick" if options.quick else "--no-compile"
    for name in asked:
        # the switches of a codebase's step are that step's to name
        if name not in (*CONTENDERS, *ON_A_GPU) and not name.startswith(f"{DROP_IN}, "):
            known = "; ".join((*CONTENDERS, *ON_A_GPU))
            raise Misuse(f"--contender: expected one of {known}; got {name!r}")
        if name in ON_A_GPU and options.device.type != "cuda":
            raise Misuse(f"--contender: {name!r} is there on a GPU only, with --device cuda")
        if name in ON_BACKENDS and (why := backends.why_not(ON_BACKENDS[name], "cuda")):
            raise Misuse(f"--contender: {name!r} cannot be had: {why}")
        if name == COMPILE and (options.quick or options.no_compile):
            raise Misuse(f"--contender: {name!r} is left out by {without_compile}")
        if name == REFERENCE and options.quick:
            raise Misuse(f"--contender: {name!r} is left out by --quick")


def plan_of(options: argparse.Namespace) -> runner.Plan:
    quick = options.quick
    rounds = options.rounds or (QUICK_ROUNDS if quick else timing.ROUNDS)
    asked = tuple(getattr(options, "contender", ()))
    _check_contenders(asked, options)
    return runner.Plan(
        device=options.device,
        rounds=rounds,
        most_seconds=QUICK_SECONDS if quick else options.seconds,
        most_minutes=options.most_minutes or (QUICK_MINUTES if quick else MOST_MINUTES),
        with_compile=not (quick or getattr(options, "no_compile", False)),
        with_reference=not quick,
        only_contenders=asked,
        seed=options.seed,
    )


def run(options: argparse.Namespace, workloads: Sequence[Workload], console: Console) -> int:
    plan = plan_of(options)
    asked = catalogue.choose(workloads, options.only, options.quick)
    seen: set[str] = set()
    measured = _noting(seen, _with_progress(asked, plan, console))
    status = _kept(measured, options.out, measured_table, console)
    unseen = [name for name in plan.only_contenders if name not in seen]
    if unseen and status != INTERRUPTED and ALL not in seen:
        there = "; ".join(sorted(seen))
        raise Misuse(
            f"--contender: nothing that was measured has {unseen[0]!r}; there were {there}"
        )
    return status


def _noting(seen: set[str], measured: Iterator[list[Row]]) -> Iterator[list[Row]]:
    """Which contenders there are."""
    for rows in measured:
        seen |= {row.contender for row in rows}
        yield rows


def train(options: argparse.Namespace, workloads: Sequence[Workload], console: Console) -> int:
    quick = options.quick
    seconds = QUICK_TRAIN_SECONDS if quick else TRAIN_SECONDS
    plan = side_by_side.Plan(
        options.device,
        seed=options.seed,
        steps=options.steps,
        most_seconds=options.seconds or seconds,
        quick=quick,
    )
    asked = catalogue.having(options.only, RUNS, lambda each: (each.name,))
    found = side_by_side.train_all(asked, plan, data.Source(options.data), console.print)
    return _kept(found, options.out, trained_table, console)


def _kept(
    measured: Iterator[list[Row]],
    out: Path | None,
    table: Callable[[Sequence[Row]], Table],
    console: Console,
) -> int:
    """Writes rows as they come, and shows them all at the end, also when interrupted."""
    files = ResultFiles(out) if out is not None else None
    rows: list[Row] = []
    status = OK
    try:
        for found in measured:
            rows += found
            if files is not None:
                files.write(found)
    except KeyboardInterrupt:
        status = INTERRUPTED
    finally:
        if files is not None:
            files.close()
    _report(rows, status, out, table, console)
    return FAILED if status == OK and any(row.failed for row in rows) else status


def measure(asked: Sequence[Workload], plan: runner.Plan, console: Console) -> list[Row]:
    """Everything at once, for commands that keep nothing."""
    return [row for found in _with_progress(asked, plan, console) for row in found]


def _with_progress(
    asked: Sequence[Workload], plan: runner.Plan, console: Console
) -> Iterator[list[Row]]:
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}", markup=False),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        first = "measuring the speed of a copy"
        task = progress.add_task(first, total=len(asked), left="")

        def say(done: int, workload: Workload, seconds: float) -> None:
            left = "" if math.isinf(seconds) else f"{minutes_text(seconds)} left"
            progress.update(task, completed=done, description=workload.name, left=left)
            if not console.is_terminal:
                where = ", ".join(filter(None, (f"{done + 1} of {len(asked)}", left)))
                console.print(f"{where}: {workload.name}")

        yield from runner.run(asked, plan, say)


def _report(
    rows: Sequence[Row],
    status: int,
    out: Path | None,
    table: Callable[[Sequence[Row]], Table],
    console: Console,
) -> None:
    if status == INTERRUPTED:
        console.print("Interrupted: what was measured so far follows.")
    if rows:
        console.print(table(rows))
        first = rows[0]
        where = first.gpu or first.cpu
        console.print(
            f"{where}, {first.threads} thread(s), torch {first.torch}, {first.clock}; "
            f"a copy runs at {first.copy_GB_per_s} GB/s."
        )
    for row in rows:
        if not row.measured:
            console.print(f"{row.workload}, {row.contender}: {row.status}")
    if out is not None and rows:
        console.print(f"{len(rows)} rows appended to {out}")


def compare(options: argparse.Namespace, workloads: Sequence[Workload], console: Console) -> int:
    base, new = read_rows(options.base), read_rows(options.new)
    for rows, path in ((base, options.base), (new, options.new)):
        _only_place(rows, f"compare: {path}")
    elsewhere = places.differences(base, new)
    for fact, how in elsewhere.items():
        console.print(f"Not the same place: {fact}: {how}")
    if not options.across and any(fact in elsewhere for fact in places.APART):
        raise Misuse(
            "compare: the runs are not of one device and number of threads; --across "
            "compares them all the same"
        )
    changes = comparing.compare(base, new, options.tolerance, only_ours=not options.all)
    if all(change.old is None for change in changes):
        raise Misuse("compare: the two files have no workload in common")
    console.print(comparing.table(changes))
    return FAILED if comparing.has_regressed(changes) else OK


def _only_place(rows: Sequence[Row], whose: str) -> places.Place:
    """
    Raises:
        Misuse: if the rows were taken at several.
    """
    place, *others = places.by_place(rows)
    if others:
        labels = "; ".join(each.long_label for each in (place, *others))
        raise Misuse(f"{whose} holds rows of {1 + len(others)} places: {labels}")
    return place


def profile(options: argparse.Namespace, workloads: Sequence[Workload], console: Console) -> int:
    if options.step:
        found = target.users_step(options.step)
    else:
        penalty = None if options.penalty == "none" else options.penalty
        shape = target.parse_shape(options.input)
        found = target.around(options.factory, shape, options.loss, penalty, options.device)
    result = findings.profile(found)
    seconds = findings.step_seconds(found)
    shown.show(result, findings.peak_bytes(found), seconds, console)
    return OK


def report(options: argparse.Namespace, workloads: Sequence[Workload], console: Console) -> int:
    from ganloss_fast.bench import report as reporting  # imports matplotlib, which takes a second

    rows = latest(row for file in options.files for row in read_rows(file))
    console.print(f"Written: {reporting.write(rows, options.out)}", soft_wrap=True)
    return OK


def gate(options: argparse.Namespace, workloads: Sequence[Workload], console: Console) -> int:
    base = gating.expected(options.base)
    known = {row.workload for row in gating.ours(base)}
    there = [each for each in workloads if each.name in known]
    if not there:
        raise Misuse(f"--base: {options.base} has none of the workloads that there are")
    try:  # each text must be in the name of something that there is a ratio for
        asked = catalogue.choose(there, options.only, quick=not options.only)
    except (catalogue.NothingChosen, catalogue.NothingQuick):
        catalogue.choose(workloads, options.only, quick=not options.only)  # or it is no name at all
        raise Misuse(f"--base: {options.base} lacks workloads that are asked for") from None
    plan, tolerance = plan_of(options), options.tolerance
    held = gating.held_to(base, asked)
    place = _only_place(held, f"--base: {options.base}")
    here = (plan.device.type, options.threads)
    if (place.device, place.threads or options.threads) != here:
        raise Misuse(
            f"--base: {options.base} was taken on {place.device} with {place.threads} thread(s), "
            "across which no ratio carries over; give the same --device and --threads"
        )
    changes = comparing.compare(held, gating.ours(measure(asked, plan, console)), tolerance)
    suspects = gating.suspects(changes, options.both_ways)
    again = [each for each in asked if each.name in suspects]
    if again:  # a machine that was busy for a moment is no regression
        console.print("Measured again, as it looks slower, or faster than it was.")
        longer = replace(plan, rounds=3 * plan.rounds, most_seconds=3 * plan.most_seconds)
        second = gating.ours(measure(again, longer, console))
        changes = [change for change in changes if change.workload not in suspects]
        changes += comparing.compare(gating.held_to(base, again), second, tolerance)
    console.print(comparing.table(changes))
    for line in gating.outgrown(changes):
        console.print(line)
    why = gating.shut(changes, asked, options.both_ways)
    console.print(f"The gate is shut: {why}" if why else "The gate is open.")
    return FAILED if why else OK


COMMANDS: dict[str, Callable[[argparse.Namespace, Sequence[Workload], Console], int]] = {
    "list": list_workloads,
    "run": run,
    "train": train,
    "profile": profile,
    "compare": compare,
    "report": report,
    "gate": gate,
}


# ---- the command -------------------------------------------------------------------------------


def main(
    arguments: Sequence[str] | None = None,
    workloads: Sequence[Workload] = catalogue.WORKLOADS,
    prog: str = "ganloss-bench",
) -> int:
    """Returns the exit status: 1 for a failed contender or a regression, 2 for misuse, 130 when
    interrupted."""
    options = parser(prog).parse_args(arguments)
    console = Console(  # names, paths and errors are anybody's, and may hold brackets
        width=None if sys.stdout.isatty() else 140,
        markup=False,
        emoji=False,
    )
    before = torch.get_num_threads()
    torch.set_num_threads(getattr(options, "threads", before))
    try:
        return COMMANDS[options.command](options, workloads, console)
    except MISUSES as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return MISUSED
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        return INTERRUPTED
    finally:
        torch.set_num_threads(before)
