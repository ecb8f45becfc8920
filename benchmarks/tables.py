"""The Markdown tables of README and docs, from the records in results/.

A page marks where a table goes, and :func:`with_tables` fills it in::

    <!-- table: losses, by make picture -->
    <!-- end of table -->
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ganloss_fast.bench.results import Row, read_rows
from ganloss_fast.bench.workload import BUILT_IN, COMPILE, DROP_IN, EAGER, HELPERS, OURS

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "benchmarks" / "results"
PAGES = tuple(REPOSITORY / p for p in ("README.md", "docs/performance.md", "docs/benchmark.md"))
MARKED = re.compile(r"(<!-- table: (\w+), by make picture -->\n).*?(<!-- end of table -->)", re.S)

Record = Mapping[str, Any]
Comparisons = Mapping[str, Mapping[str, Any]]  # baseline -> line of the record

# The rows of the README: workload of the record, and what is said of it.
OPS = {
    "hinge, 64 logits": "hinge loss, 64 logits",
    "feature matching, 54 maps, B=1": "feature matching over HiFi-GAN's 54 maps",
    "DCGAN: penalty, fast": 'WGAN-GP penalty, DCGAN critic, `graph_cut="fast"`',
}
STEPS = {
    "HiFi-GAN": "HiFi-GAN's training step",
    "taming": "VQGAN's training step (taming-transformers)",
    "R3GAN": "R3GAN's training step",
}
# Sections of the record whose critics and modes make a table of their own.
OF_CRITICS = "critics: gradient penalty, and WGAN-GP step"
COMPILED = "compiled, with compile_options()"


def read_records() -> dict[str, Record]:
    records = {
        name: json.loads((RESULTS / f"{name}.json").read_text()) for name in ("cpu", "penalties")
    }
    return records | {name: {"rows": read_rows(RESULTS / name)} for name in ("steps", "real")}


def comparisons(record: Record, workload: str) -> Comparisons:
    """The lines of one workload by their baseline.

    Raises:
        KeyError: if the record does not hold it.
    """
    found = {line["baseline"]: line for line in record["speed"] if line["workload"] == workload}
    if not found:
        raise KeyError(f"the record has no workload {workload!r}; run make bench")
    return found


def conditions(record: Record) -> str:
    """Where and how it was measured."""
    machine = record["machine"]
    threads = "one thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    torch = machine["torch"].split("+")[0]
    return f"{machine['cpu']}, {threads}, torch {torch}, {machine['clock']}"


def _time(microseconds: float) -> str:
    if microseconds < 1e3:
        return f"{microseconds:.0f} us"
    return f"{microseconds / 1e3:.3g} ms" if microseconds < 1e6 else f"{microseconds / 1e6:.3g} s"


def _ratio(found: Comparisons, baseline: str) -> str:
    return f"{found[baseline]['ratio']:.2f}x" if baseline in found else ""


def _table(head: str, rows: list[str]) -> str:
    return "\n".join([head, "|---" * (head.count("|") - 1) + "|", *rows]) + "\n"


def _against_both(record: Record, workload: str, label: str) -> str:
    found = comparisons(record, workload)
    time = _time(next(iter(found.values()))["ours_microseconds"])
    return f"| {label} | {time} | {_ratio(found, EAGER)} | {_ratio(found, COMPILE)} |"


def gains(records: Mapping[str, Record]) -> str:
    rows = [_against_both(records["cpu"], workload, label) for workload, label in OPS.items()]
    found = _by_workload(records["steps"])
    for step, label in STEPS.items():
        ours = found[f"{step}: whole step"][DROP_IN]
        rows.append(
            f"| {label}, one import changed | {_time(ours.p50_us)} | {ours.ratio:.2f}x |  |"
        )
    return _table("| work, forward and backward | ours | eager | torch.compile |", rows)


def losses(records: Mapping[str, Record]) -> str:
    """Everything but the critics."""
    record, rows = records["cpu"], []
    for workload in dict.fromkeys(
        line["workload"]
        for line in record["speed"]
        if line["section"] not in (OF_CRITICS, COMPILED)
    ):
        found = comparisons(record, workload)
        time = _time(next(iter(found.values()))["ours_microseconds"])
        cells = (_ratio(found, baseline) for baseline in (EAGER, COMPILE, BUILT_IN))
        rows.append(f"| {workload} | {time} | {' | '.join(cells)} |")
    return _table(
        "| work, forward and backward | ours | eager | torch.compile | F.mse_loss |", rows
    )


def penalties(records: Mapping[str, Record]) -> str:
    """Arithmetic, and times of the penalty alone and of the whole step."""

    def ratio(workload: str) -> str:
        return _ratio(comparisons(records["cpu"], workload), EAGER)

    rows = []
    for counted in records["penalties"]["arithmetic"]:
        critic = counted["critic"]
        cells = [ratio(f"{critic}: {part}") for part in _PARTS]
        arithmetic = f"{counted['stock']:.2f} -> {counted['auto']:.2f}"
        rows.append(f"| {critic} | {arithmetic} | {' | '.join(cells)} |")
    together = [ratio(f"DCGAN: step with cat(fake, real), {mode}") for mode in ("auto", "fast")]
    rows.append(f"| DCGAN, fake and real in one forward | | | | {' | '.join(together)} |")
    head = (
        "| eager, one thread | arithmetic, in forward passes | penalty, auto | penalty, fast "
        "| whole step, auto | whole step, fast |"
    )
    return _table(head, rows)


_PARTS = ("penalty, auto", "penalty, fast", "step, auto", "step, fast")


def compiled(records: Mapping[str, Record]) -> str:
    rows = [
        _against_both(records["cpu"], f"DCGAN: compiled {part}", f"DCGAN, {part}")
        for part in ("penalty", "step")
    ]
    return _table("| compiled | ours | stock, eager | stock, compiled |", rows)


def costs(records: Mapping[str, Record]) -> str:
    walk, memory = records["penalties"]["graph_walk"], records["penalties"]["memory"]
    rows = [
        f"| walk over an autograd graph of {walk['nodes']} nodes | {walk['microseconds']:.0f} us |",
        f"| peak memory of R1, 16x3x256x256, DCGAN critic | {memory['whole_megabytes']:.0f} MB |",
        f"| the same with `chunk_size=2` | {memory['chunks_megabytes']:.0f} MB, in "
        f"{memory['time_ratio']:.2f}x the time |",
    ]
    return _table("| cost | measured |", rows)


def steps(records: Mapping[str, Record]) -> str:
    """Whole training steps: how many times faster than as written, with the 95 % interval."""
    rows = []
    for workload, found in _by_workload(records["steps"]).items():
        switch = next((name for name in found if name.startswith(f"{DROP_IN}, ")), None)
        cells = [
            workload.removesuffix(": whole step"),
            found[EAGER].shapes,
            _time(found[EAGER].p50_us),
            _gain(found.get(COMPILE)),
            _gain(found[DROP_IN]),
            f"`{switch.removeprefix(f'{DROP_IN}, ')}`: {_gain(found[switch])}" if switch else "",
            _gain(found.get(HELPERS)),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    head = (
        "| step | sizes | as written | torch.compile | one import | its switch "
        "| with the step helpers |"
    )
    return _table(head, rows)


def real(records: Mapping[str, Record]) -> str:
    """Losses and penalties of well-known codebases, how many times faster than as written."""
    rows = []
    for workload, found in _by_workload(records["real"]).items():
        ours = found[OURS]
        share = "" if ours.of_copy_bandwidth is None else f"{ours.of_copy_bandwidth:.2f}"
        time = _time(found[EAGER].p50_us)
        cells = [workload, found[EAGER].shapes, time, _gain(found.get(COMPILE)), _gain(ours), share]
        rows.append(f"| {' | '.join(cells)} |")
    head = "| work | sizes | as written | torch.compile | ours | ours, of the speed of a copy |"
    return _table(head, rows)


def _by_workload(record: Record) -> dict[str, dict[str, Row]]:
    """The rows of a run by workload and contender."""
    found: dict[str, dict[str, Row]] = {}
    for row in record["rows"]:
        found.setdefault(row.workload, {})[row.contender] = row
    return found


def _gain(row: Row | None) -> str:
    if row is None:
        return ""
    return row.ratio_text if row.ratio else row.status


def where(records: Mapping[str, Record]) -> str:
    return f"Measured on: {conditions(records['cpu'])}.\n"


TABLES = {
    "gains": gains,
    "losses": losses,
    "penalties": penalties,
    "real": real,
    "compiled": compiled,
    "costs": costs,
    "steps": steps,
    "where": where,
}


def with_tables(page: str, records: Mapping[str, Record]) -> str:
    """The page with every marked table drawn from the records."""
    return MARKED.sub(lambda m: f"{m[1]}{TABLES[m[2]](records)}{m[3]}", page)
