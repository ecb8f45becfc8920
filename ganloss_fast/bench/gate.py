"""The gate: whether this checkout is still as much faster than plain PyTorch as it was.

It looks at ratios alone, of a few quick workloads measured now, against those of an earlier run or
of the record in benchmarks/results. Absolute times never count.

A base that ratios have outgrown hides a slowdown: what was 5 and is 7 may lose a third unseen. So
the gate says where a ratio is above its base by more than the tolerance, and may be shut by that as
well. At a tolerance of 0.2 both ways nothing passes that became 1.5 times slower: 1.2 / 1.5 is 0.8.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ganloss_fast.bench.compare import UNKNOWN, Change, has_regressed
from ganloss_fast.bench.results import LARGEST, ResultError, Row, read_rows
from ganloss_fast.bench.workload import ALL, EAGER, OURS, Workload

TOLERANCE = 0.2  # 1.5 times slower is 0.33


def expected(base: Path) -> list[Row]:
    """The rows that the gate holds to: of a run, or of a record such as cpu.json.

    Raises:
        ResultError: if it is neither, or has a part that cannot be read, and so held to.
    """
    if base.suffix != ".json":
        return read_rows(base, warn=_refuse)
    try:
        record: Any = json.loads(base.read_text())
        threads = _threads(record)
        rows = (_row(line) for line in record["speed"] if line["baseline"] == EAGER)
        return [replace(row, threads=threads) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultError(f"{base}: no record of this benchmark ({error})") from None


def _refuse(broken: str) -> None:
    raise ResultError(broken)


def _row(line: dict[str, Any]) -> Row:
    empty = Row(line["workload"], line["section"], OURS, "", "", "", "", "measured")
    names = ("ratio", "ratio_lower_quartile", "ratio_upper_quartile")
    ratio, low, high = (_number(line, name) for name in names)
    return replace(empty, ratio=ratio, ratio_low=low, ratio_high=high)


def _threads(record: dict[str, Any]) -> int:
    threads = record["machine"]["threads"]
    if type(threads) is not int:
        raise ValueError(f"threads is {threads}")
    return threads


def _number(line: dict[str, Any], name: str) -> float:
    value = line[name]
    if type(value) not in (int, float) or not 0 < value < LARGEST:
        raise ValueError(f"{line['workload']}: {name} is {value}")
    return float(value)


def held_to(base: Sequence[Row], asked: Sequence[Workload]) -> list[Row]:
    """Of the base, ours on the workloads that are asked for."""
    names = {each.name for each in asked}
    return [row for row in ours(base) if row.workload in names]


def ours(rows: Sequence[Row]) -> list[Row]:
    """And what stands for it where a workload was not even built."""
    return [row for row in rows if row.contender in (OURS, ALL)]


def suspects(changes: Sequence[Change], both_ways: bool) -> set[str]:
    """Workloads that look slower; where that counts too, faster."""
    looked_for = ("regressed", "faster") if both_ways else ("regressed",)
    return {change.workload for change in changes if change.verdict in looked_for}


def outgrown(changes: Sequence[Change]) -> list[str]:
    """One line for each base that is far below what is measured now."""
    return [
        f"{change.workload}: faster than its base by more than the tolerance "
        f"({change.factor:.2f} times): record afresh"
        for change in changes
        if change.verdict == "faster"
    ]


def shut(changes: Sequence[Change], asked: Sequence[Workload], both_ways: bool) -> str | None:
    """Why the gate is, if it is."""
    judged = {change.workload for change in changes if change.verdict not in UNKNOWN}
    unknown = [each.name for each in asked if each.name not in judged]
    if unknown:
        return f"there is no ratio to hold to its base: {'; '.join(unknown)}."
    if has_regressed(changes):
        return "ratios fell, or what has one failed."
    if both_ways and outgrown(changes):
        return "ratios grew beyond their base."
    return None
