"""The gate: whether this checkout is still as much faster than plain PyTorch as it was.

It looks at ratios alone, of a few quick workloads measured now, against those of an earlier run or
of the record in benchmarks/results. Absolute times never count.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ganloss_fast.bench.compare import Change
from ganloss_fast.bench.results import ResultError, Row, read_rows
from ganloss_fast.bench.workload import EAGER, OURS, Workload

TOLERANCE = 0.2  # 1.5 times slower is 0.33


def expected(base: Path) -> list[Row]:
    """The rows that the gate holds to: of a run, or of a record such as cpu.json.

    Raises:
        ResultError: if it is neither.
    """
    if base.suffix != ".json":
        return read_rows(base)
    try:
        record: Any = json.loads(base.read_text())
        return [_row(line) for line in record["speed"] if line["baseline"] == EAGER]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultError(f"{base}: no record of this benchmark ({error})") from None


def _row(line: dict[str, Any]) -> Row:
    empty = Row(line["workload"], line["section"], OURS, "", "", "", "", "measured")
    low, high = line["ratio_lower_quartile"], line["ratio_upper_quartile"]
    return replace(empty, ratio=line["ratio"], ratio_low=low, ratio_high=high)


def held_to(base: Sequence[Row], asked: Sequence[Workload]) -> list[Row]:
    """Of the base, ours on the workloads that are asked for."""
    names = {each.name for each in asked}
    return [row for row in ours(base) if row.workload in names]


def ours(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.contender == OURS]


def suspects(changes: Sequence[Change]) -> set[str]:
    """Workloads that look slower."""
    return {change.workload for change in changes if change.verdict == "regressed"}
