"""The command: ``ganloss-bench``, ``python -m ganloss_fast.bench``; ``python -m benchmarks`` in a
checkout, which adds the workloads that need one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ganloss_fast.bench import catalogue, runner, timing
from ganloss_fast.bench import compare as comparing
from ganloss_fast.bench import gate as gating
from ganloss_fast.bench.profile import findings, shown, target
from ganloss_fast.bench.results import ResultError, ResultFiles, Row, read_rows
from ganloss_fast.bench.tables import listing, measured_table
from ganloss_fast.bench.workload import (
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
CONTENDERS = (OURS, REFERENCE, EAGER, COMPILE, BUILT_IN, DROP_IN, HELPERS)


class Misuse(Exception):
    """Something that the caller can put right; the text is one for people."""


# ---- arguments ---------------------------------------------------------------------------------


def parser(prog: str) -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog=prog, description="What ganloss_fast gains on this machine.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_list(commands.add_parser("list", help="every workload: shapes, dtypes, bytes, source"))
    _add_run(commands.add_parser("run", help="measure"))
    _add_profile(commands.add_parser("profile", help="your own discriminator, or training step"))
    _add_compare(commands.add_parser("compare", help="two result files: what got slower?"))
    _add_report(commands.add_parser("report", help="one HTML page and figures from result files"))
    _add_gate(
        commands.add_parser("gate", help="measure quickly: are the ratios still as they were?")
    )
    return top


def _add_list(command: argparse.ArgumentParser) -> None:
    command.add_argument("--only", action="append", default=[], metavar="TEXT")
    command.add_argument("--quick", action="store_true", help="what run --quick measures")
    command.set_defaults(work=list_workloads)


def _add_measuring(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="TEXT",
        help="workloads with this in their name or section; may be given several times",
    )
    command.add_argument(
        "--quick", action="store_true", help="small workloads, few rounds: under a minute"
    )
    command.add_argument("--rounds", type=_positive, help=f"of each contender ({timing.ROUNDS})")
    command.add_argument("--seconds", type=float, default=3.0, help="most for one workload (3)")
    command.add_argument("--threads", type=_positive, default=1)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--device", type=_device, default=torch.device("cpu"))


def _add_run(command: argparse.ArgumentParser) -> None:
    _add_measuring(command)
    command.add_argument(
        "--contender",
        action="append",
        default=[],
        metavar="NAME",
        help=f"besides {OURS} and {EAGER} measure only this; may be given several times",
    )
    command.add_argument("--no-compile", action="store_true", help=f"leave {COMPILE} out")
    command.add_argument("--out", type=Path, help="folder of rows.jsonl and rows.csv; appended to")
    command.set_defaults(work=run)


def _add_profile(command: argparse.ArgumentParser) -> None:
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--factory", metavar="MODULE:FUNCTION", help="a function that makes the discriminator"
    )
    what.add_argument(
        "--step",
        metavar="MODULE:FUNCTION",
        help="a function that returns a dict: step, a function that trains once with the "
        "optimizers; discriminator and generator, the modules",
    )
    command.add_argument("--input", default="4x3x64x64", help="of --factory: a batch, 8x3x256x256")
    command.add_argument("--loss", choices=target.LOSS_NAMES, default="hinge", help="of --factory")
    command.add_argument(
        "--penalty", choices=target.PENALTY_NAMES, default="none", help="of --factory"
    )
    command.add_argument("--threads", type=_positive, default=1)
    command.set_defaults(work=profile)


def _add_compare(command: argparse.ArgumentParser) -> None:
    command.add_argument("base", type=Path, help="rows.jsonl, or its folder, held to be right")
    command.add_argument("new", type=Path, help="the same of the run in question")
    command.add_argument("--tolerance", type=_share, default=comparing.TOLERANCE)
    command.add_argument("--all", action="store_true", help=f"{COMPILE} and {BUILT_IN} too")
    command.set_defaults(work=compare)


def _add_report(command: argparse.ArgumentParser) -> None:
    command.add_argument("files", type=Path, nargs="+", help="rows.jsonl, or their folders")
    command.add_argument("--out", type=Path, default=Path("ganloss-report"), help="folder")
    command.set_defaults(work=report)


def _add_gate(command: argparse.ArgumentParser) -> None:
    _add_measuring(command)
    command.add_argument(
        "--base", type=Path, required=True, help="of an earlier run, or benchmarks/results/cpu.json"
    )
    command.add_argument("--tolerance", type=_share, default=gating.TOLERANCE)
    command.set_defaults(work=gate, quick=True)


def _positive(text: str) -> int:
    value = int(text) if text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return value


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 up to 1, got {text!r}")
    return value


def _device(text: str) -> torch.device:
    try:
        device = torch.device(text)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"expected cpu or cuda, got {text!r}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError("torch finds no GPU: torch.cuda.is_available() is False")
    return device


# ---- list, run, compare ------------------------------------------------------------------------


def list_workloads(
    options: argparse.Namespace, workloads: Sequence[Workload], console: Console
) -> int:
    console.print(listing(catalogue.choose(workloads, options.only, options.quick)))
    console.print(f"Contenders: {', '.join(CONTENDERS)}")
    return OK


def plan_of(options: argparse.Namespace) -> runner.Plan:
    quick = options.quick
    rounds = options.rounds or (QUICK_ROUNDS if quick else timing.ROUNDS)
    asked = tuple(getattr(options, "contender", ()))
    for name in asked:
        if not any(name.startswith(known) for known in CONTENDERS):
            raise Misuse(f"--contender: expected one of {', '.join(CONTENDERS)}, got {name!r}")
    return runner.Plan(
        device=options.device,
        rounds=rounds,
        most_seconds=QUICK_SECONDS if quick else options.seconds,
        with_compile=not (quick or getattr(options, "no_compile", False)),
        with_reference=not quick,
        only_contenders=asked,
        seed=options.seed,
    )


def run(options: argparse.Namespace, workloads: Sequence[Workload], console: Console) -> int:
    plan = plan_of(options)
    asked = catalogue.choose(workloads, options.only, options.quick)
    files = ResultFiles(options.out) if options.out is not None else None
    rows: list[Row] = []
    status = OK
    try:
        for found in _with_progress(asked, plan, console):
            rows += found
            if files is not None:
                files.write(found)
    except KeyboardInterrupt:
        status = INTERRUPTED
    finally:
        if files is not None:
            files.close()
    _report(rows, status, options.out, console)
    failed = any(not row.measured for row in rows)
    return FAILED if failed and status == OK else status


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
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("measuring the speed of a copy", total=len(asked))

        def say(done: int, workload: Workload) -> None:
            progress.update(task, completed=done, description=workload.name)
            if not console.is_terminal:
                console.print(f"{done + 1} of {len(asked)}: {workload.name}")

        yield from runner.run(asked, plan, say)


def _report(rows: Sequence[Row], status: int, out: Path | None, console: Console) -> None:
    if status == INTERRUPTED:
        console.print("Interrupted: what was measured so far follows.")
    if rows:
        console.print(measured_table(rows))
        first = rows[0]
        where = first.gpu or first.cpu
        console.print(
            f"{where}, {first.threads} thread(s), torch {first.torch}, {first.clock}; "
            f"a copy runs at {first.copy_GB_per_s} GB/s."
        )
    failed = [row for row in rows if not row.measured]
    for row in failed:
        console.print(f"{row.workload}, {row.contender}: {row.status}")
    if out is not None and rows:
        console.print(f"{len(rows)} rows appended to {out}")


def compare(options: argparse.Namespace, workloads: Sequence[Workload], console: Console) -> int:
    base, new = read_rows(options.base), read_rows(options.new)
    changes = comparing.compare(base, new, options.tolerance, only_ours=not options.all)
    if all(change.old is None for change in changes):
        raise Misuse("compare: the two files have no workload in common")
    console.print(comparing.table(changes))
    for difference in comparing.different_places(base, new):
        console.print(f"Not the same place: {difference}")
    return FAILED if comparing.has_regressed(changes) else OK


def profile(options: argparse.Namespace, workloads: Sequence[Workload], console: Console) -> int:
    if options.step:
        found = target.users_step(options.step)
    else:
        penalty = None if options.penalty == "none" else options.penalty
        shape = target.parse_shape(options.input)
        found = target.around(options.factory, shape, options.loss, penalty)
    result = findings.profile(found)
    shown.show(result, findings.peak_bytes(found), console)
    return OK


def report(options: argparse.Namespace, workloads: Sequence[Workload], console: Console) -> int:
    from ganloss_fast.bench import report as reporting  # imports matplotlib, which takes a second

    rows = [row for file in options.files for row in read_rows(file)]
    console.print(f"Written: {reporting.write(rows, options.out)}", soft_wrap=True)
    return OK


def gate(options: argparse.Namespace, workloads: Sequence[Workload], console: Console) -> int:
    base = gating.expected(options.base)
    known = {row.workload for row in base}
    asked = catalogue.choose(workloads, options.only, quick=True)
    asked = [each for each in asked if each.name in known]
    if not asked:
        raise Misuse(f"--base: {options.base} has none of the workloads that are asked for")
    plan, tolerance = plan_of(options), options.tolerance
    held = gating.held_to(base, asked)
    changes = comparing.compare(held, gating.ours(measure(asked, plan, console)), tolerance)
    suspects = gating.suspects(changes)
    again = [each for each in asked if each.name in suspects]
    if again:  # a machine that was busy for a moment is no regression
        console.print("Measured again, as it looks slower.")
        longer = replace(plan, rounds=3 * plan.rounds, most_seconds=3 * plan.most_seconds)
        second = gating.ours(measure(again, longer, console))
        changes = [change for change in changes if change.workload not in suspects]
        changes += comparing.compare(gating.held_to(base, again), second, tolerance)
    console.print(comparing.table(changes))
    slower = comparing.has_regressed(changes)
    console.print("The gate is shut: ratios fell." if slower else "The gate is open.")
    return FAILED if slower else OK


# ---- the command -------------------------------------------------------------------------------


def main(
    arguments: Sequence[str] | None = None,
    workloads: Sequence[Workload] = catalogue.WORKLOADS,
    prog: str = "ganloss-bench",
) -> int:
    """Returns the exit status: 1 for a failed contender or a regression, 2 for misuse, 130 when
    interrupted."""
    options = parser(prog).parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 140)
    before = torch.get_num_threads()
    torch.set_num_threads(getattr(options, "threads", before))
    work: Callable[[argparse.Namespace, Sequence[Workload], Console], int] = options.work
    try:
        return work(options, workloads, console)
    except (Misuse, ResultError, catalogue.NothingChosen, target.TargetError) as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return MISUSED
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        return INTERRUPTED
    finally:
        torch.set_num_threads(before)
