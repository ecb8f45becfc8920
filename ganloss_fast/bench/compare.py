"""Two result files: what got slower than noise explains.

What is compared is how many times faster a contender is than the code as written beside it, never
a time: both took turns on the same machine, so a slower or a busier one changes ratios little. A
contender has regressed where the whole interval of its new ratio lies below that of the old one,
and the medians differ by more than the tolerance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.table import Table
from rich.text import Text

from ganloss_fast.bench.results import Row
from ganloss_fast.bench.workload import ALL, DROP_IN, EAGER, HELPERS, OURS

TOLERANCE = 0.1
Verdict = Literal["regressed", "faster", "as before", "failed", "no ratio", "new", "missing"]
UNKNOWN = ("missing", "no ratio")  # no regression of a run, and nothing that a gate lets pass
_COLOURS = {"faster": "green", "regressed": "red", "failed": "red"} | dict.fromkeys(
    UNKNOWN, "yellow"
)


@dataclass(frozen=True)
class Change:
    """One contender of one workload, in both files."""

    workload: str
    contender: str
    old: Row | None
    new: Row | None
    verdict: Verdict

    @property
    def factor(self) -> float | None:
        """Of the ratios, new over old."""
        if self.old is None or self.new is None or not self.old.ratio or not self.new.ratio:
            return None
        return self.new.ratio / self.old.ratio


def _verdict(old: Row | None, new: Row | None, tolerance: float) -> Verdict:
    if new is None or not (new.measured or new.failed):
        return "missing"
    if not new.measured:
        return "as before" if old is not None and not old.measured else "failed"
    if old is None or not old.measured:
        return "new"
    if not old.ratio or not new.ratio:
        return "no ratio"  # of either, so that nothing can be said
    if _is_below(new, old) and new.ratio < old.ratio * (1 - tolerance):
        return "regressed"
    if _is_below(old, new) and new.ratio > old.ratio * (1 + tolerance):
        return "faster"
    return "as before"


def _is_below(one: Row, other: Row) -> bool:
    """Whether the whole interval of its ratio is; False where one has no ratio."""
    if one.ratio_high is None or other.ratio_low is None:
        return False
    return one.ratio_high < other.ratio_low


def compare(
    base: Sequence[Row], rows: Sequence[Row], tolerance: float = TOLERANCE, only_ours: bool = True
) -> list[Change]:
    """The changes between two runs.

    Args:
        base: rows of the run that is held to be right.
        rows: rows of the other run. Of workloads that it did not measure nothing is said.
        tolerance: how much smaller a ratio may be, whatever the intervals say.
        only_ours: leave out what is not this package, such as torch.compile.
    """
    run = {row.workload for row in rows}
    old = {(r.workload, r.contender): r for r in base if r.workload in run}
    new = {(r.workload, r.contender): r for r in rows}
    changes = []
    for key in dict.fromkeys([*old, *new]):
        workload, contender = key
        if contender == EAGER or (only_ours and not _is_ours(contender)):
            continue
        before, after = old.get(key), new.get(key) or new.get((workload, ALL))
        changes.append(Change(*key, before, after, _verdict(before, after, tolerance)))
    return changes


def _is_ours(contender: str) -> bool:
    return contender.startswith((OURS, DROP_IN, HELPERS))


def has_regressed(changes: Sequence[Change]) -> bool:
    """Also where a ratio that the base has is there no longer."""
    return any(
        change.verdict in ("regressed", "failed")
        or (change.verdict == "no ratio" and change.old is not None and bool(change.old.ratio))
        for change in changes
    )


def table(changes: Sequence[Change]) -> Table:
    shown = Table(
        title=f"Times faster than {EAGER}: base, now, and what became of it", title_justify="left"
    )
    for column in ("workload", "contender", "base", "now", "factor", "verdict"):
        shown.add_column(column, overflow="fold")
    for change in changes:
        verdict = Text(change.verdict, _COLOURS.get(change.verdict, ""))
        factor = "" if change.factor is None else f"{change.factor:.2f}"
        shown.add_row(
            change.workload, change.contender, _cell(change.old), _cell(change.new), factor, verdict
        )
    return shown


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    if not row.measured:
        return row.status
    if row.ratio is None:
        return "no ratio"
    return row.ratio_text
