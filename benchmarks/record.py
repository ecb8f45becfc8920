"""The record that README and docs/performance.md are drawn from: every workload against its floor.

    python -m benchmarks.record    # make bench

Measured by the runner of ``ganloss-bench run``; added are what the record alone says: where a
floor is missed, what penalties cost besides time, and how exact softplus is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import accuracy, penalties
from benchmarks.penalty_workloads import workloads as penalty_workloads
from ganloss_fast.bench import losses, machine, runner, timing
from ganloss_fast.bench.argument_types import device, folder, positive, threads
from ganloss_fast.bench.recording import write_csv, write_json
from ganloss_fast.bench.runner import Plan
from ganloss_fast.bench.tables import time_text
from ganloss_fast.bench.timing import Clock, Timing
from ganloss_fast.bench.workload import BASELINES, EAGER, OURS, Workload

ABOUT = __doc__.splitlines()[0]
RESULTS = Path(__file__).resolve().parent / "results"
WORKLOADS = (*losses.WORKLOADS, *penalty_workloads())


@dataclass(frozen=True)
class Comparison:
    """One workload against one baseline; a line of the CSV."""

    section: str
    workload: str
    baseline: str
    ours_microseconds: float
    baseline_microseconds: float
    ratio: float
    ratio_lower_quartile: float
    ratio_upper_quartile: float
    floor: float | None
    difference: float | None  # of value and gradients, relative; None where they are not alike

    @property
    def reached(self) -> bool | None:
        return None if self.floor is None else self.ratio >= self.floor


def compare(workload: Workload, plan: Plan, clock: Clock) -> list[Comparison]:
    """Times the contenders in turns, and says how each stands to ours.

    Raises:
        RuntimeError: if one fails, or computes something else than ours: no record with a hole.
    """
    found = runner.measure(workload, plan, clock)
    for name, measured in found.items():
        if measured.timing is None:
            raise RuntimeError(f"{workload.name}, {name}: {measured.status}")
    ours = found[OURS].timing
    return [
        _comparison(workload, name, ours, found[name].timing, _difference(name, found))
        for name in BASELINES
        if name in found
    ]


def _difference(baseline: str, found: dict[str, runner.Measured]) -> float | None:
    """Of ours from the code as written, or of another baseline from that."""
    return found[OURS if baseline == EAGER else baseline].difference


def _comparison(
    workload: Workload, baseline: str, ours: Timing, other: Timing, difference: float | None
) -> Comparison:
    low, high = other.ratio_spread(ours)
    return Comparison(
        section=workload.section,
        workload=workload.name,
        baseline=baseline,
        ours_microseconds=1e6 * ours.seconds,
        baseline_microseconds=1e6 * other.seconds,
        ratio=other.ratio_to(ours),
        ratio_lower_quartile=low,
        ratio_upper_quartile=high,
        floor=workload.floors.get(baseline),
        difference=difference,
    )


# ---- tables ------------------------------------------------------------------------------------


def _cell(comparison: Comparison | None) -> str:
    """A speed-up with its floor, red where that is missed: 3.10x (>= 1.8)."""
    if comparison is None:
        return ""
    text = f"{comparison.ratio:.2f}x"
    if comparison.floor is None:
        return text
    colour, mark = ("green", "") if comparison.reached else ("red", " MISSED")
    return f"[{colour}]{text}[/] (>= {comparison.floor:g}){mark}"


def speed_table(comparisons: Sequence[Comparison]) -> Table:
    table = Table(
        title="Times faster than ... (floor), medians of interleaved rounds", title_justify="left"
    )
    table.add_column("forward + backward")
    table.add_column(OURS, justify="right")
    for baseline in BASELINES:
        table.add_column(baseline, justify="right")
    section = None
    for name in dict.fromkeys(comparison.workload for comparison in comparisons):
        row = {c.baseline: c for c in comparisons if c.workload == name}
        first = next(iter(row.values()))
        if first.section != section:
            section = first.section
            table.add_section()
            table.add_row(f"[dim]{section}[/]")
        cells = [_cell(row.get(baseline)) for baseline in BASELINES]
        table.add_row(name, time_text(first.ours_microseconds), *cells)
    return table


def accuracy_table(rows: Sequence[accuracy.Accuracy]) -> Table:
    table = Table(title="Largest error in ulp, [-1e4, 1e4]", title_justify="left")
    for column in ("function", OURS, "torch", "floor"):
        table.add_column(column)
    for row in rows:
        reached = "" if row.ours <= accuracy.FLOOR_ULP else " MISSED"
        table.add_row(
            row.function,
            f"{row.ours:.2f}{reached}",
            f"{row.torch:.3g}",
            f"<= {accuracy.FLOOR_ULP:g}",
        )
    return table


# ---- command -----------------------------------------------------------------------------------


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record", description=ABOUT)
    parser.add_argument("--only", default="", help="what has this text in its name")
    parser.add_argument("--rounds", type=positive, default=timing.ROUNDS)
    parser.add_argument("--threads", type=threads, default=1)
    parser.add_argument("--device", type=device, default=torch.device("cpu"))
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument(
        "--out",
        type=folder,
        help="folder of the CSV and JSON; without --only benchmarks/results, with it none",
    )
    options = parser.parse_args(arguments)
    on_cpu = options.device.type == "cpu"

    def has(name: str) -> bool:
        return str(options.only).lower() in name.lower()

    options.workloads = [each for each in WORKLOADS if has(each.name)]
    options.costs = [each for each in penalties.COSTS if on_cpu and has(each.name)]
    if not options.workloads and not options.costs:
        names = "\n  ".join(each.name for each in (*WORKLOADS, *penalties.COSTS))
        parser.error(f"--only: nothing has {options.only!r} in its name; there are\n  {names}")
    if options.out is None and not options.only:  # a part never takes the place of the record
        options.out = RESULTS
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 130 when interrupted; a missed floor is the table's to say."""
    options = parse_arguments(arguments)
    torch.set_num_threads(options.threads)
    console = Console(width=None if sys.stdout.isatty() else 120)
    clock = timing.clock_of(options.device)
    facts = machine.facts(options.device) | {"clock": clock.name}
    console.print(
        f"{facts['cpu']}, threads: {facts['threads']}, torch {facts['torch']}, {facts['clock']}"
    )

    plan = Plan(
        options.device,
        options.rounds,
        most_seconds=30.0,
        with_compile=not options.no_compile,
        with_reference=False,
    )
    comparisons: list[Comparison] = []
    status = 0
    try:
        nothing = not options.workloads  # then no bar either
        for workload in track(options.workloads, "measuring", console=console, disable=nothing):
            comparisons += compare(workload, plan, clock)
    except KeyboardInterrupt:
        console.print("Interrupted: what was measured so far follows.")
        status = 130
    records: dict[str, dict[str, Any]] = {}
    if comparisons:
        errors = accuracy.measure() if options.device.type == "cpu" else []
        records[options.device.type] = report_speed(comparisons, errors, facts, console)
    if options.costs and status == 0:
        records["penalties"] = penalties.measure(options.costs, console)
    if records and options.out is not None:
        for name, record in records.items():
            write_json(options.out / f"{name}.json", record)
        if comparisons:
            rows = records[options.device.type]["speed"]
            write_csv(options.out / f"{options.device.type}.csv", rows)
        console.print(f"Recorded in {options.out}")
    return status


def report_speed(
    comparisons: Sequence[Comparison],
    errors: Sequence[accuracy.Accuracy],
    facts: dict[str, str | int],
    console: Console,
) -> dict[str, Any]:
    """Shows the tables, and returns what is recorded."""
    console.print(speed_table(comparisons))
    if errors:
        console.print(accuracy_table(errors))
    missed = sum(comparison.reached is False for comparison in comparisons)
    judged = sum(comparison.reached is not None for comparison in comparisons)
    console.print(f"{judged - missed} of {judged} floors reached.")
    return {
        "machine": facts,
        "speed": [asdict(c) | {"reached": c.reached} for c in comparisons],
        "accuracy": [asdict(error) for error in errors],
    }


if __name__ == "__main__":
    sys.exit(main())
