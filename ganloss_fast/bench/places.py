"""Where rows were taken: machine, device and threads. What is compared must share them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ganloss_fast.bench.curves import THREADS_CURVE
from ganloss_fast.bench.results import Row

FACTS = ("device", "gpu", "cpu", "threads", "torch", "clock")
APART = ("device", "gpu", "threads")  # across these not even ratios carry over


@dataclass(frozen=True)
class Place:
    """A machine, and how it was used."""

    cpu: str
    gpu: str
    device: str
    threads: int | None  # None where only a curve of threads was measured

    @property
    def label(self) -> str:
        threads = "" if self.threads is None else f", {self.threads} thread(s)"
        return f"{self.gpu or self.cpu}{threads}"

    @property
    def long_label(self) -> str:
        """For places that share the short one."""
        return f"{self.label}, {self.device}, {self.cpu}"


def place_of(row: Row, rows: Sequence[Row]) -> Place:
    """A point of the curve of threads belongs to the run that it is a part of."""
    threads: int | None = row.threads
    if row.curve == THREADS_CURVE:
        machine = (row.cpu, row.gpu, row.device)
        beside = (r for r in rows if (r.cpu, r.gpu, r.device) == machine)
        threads = next((r.threads for r in beside if r.curve != THREADS_CURVE), None)
    return Place(row.cpu, row.gpu, row.device, threads)


def by_place(rows: Sequence[Row]) -> dict[Place, list[Row]]:
    found: dict[Place, list[Row]] = {}
    for row in rows:
        found.setdefault(place_of(row, rows), []).append(row)
    return found


def labelled(rows: Sequence[Row]) -> list[Row]:
    """As they are where all are of one place; of several, each row names its own, so that none
    shares a group, a curve or a bar with another's."""
    groups = by_place(rows)
    if len(groups) < 2:
        return list(rows)
    short = [place.label for place in groups]
    found = []
    for place, group in groups.items():
        label = place.label if short.count(place.label) == 1 else place.long_label
        found += [_with_label(row, f" [{label}]") for row in group]
    return found


def _with_label(row: Row, label: str) -> Row:
    curve = row.curve and row.curve + label
    return replace(row, workload=row.workload + label, section=row.section + label, curve=curve)


def differences(base: Sequence[Row], rows: Sequence[Row]) -> dict[str, str]:
    """In which facts the workloads that two runs share were measured elsewhere, and how: ratios
    carry over only roughly then."""
    shared = {row.workload for row in base} & {row.workload for row in rows}
    found = {}
    for fact in FACTS:
        before, after = (
            {str(getattr(row, fact)) for row in side if row.workload in shared}
            for side in (base, rows)
        )
        if before != after:
            found[fact] = f"{', '.join(sorted(before))} -> {', '.join(sorted(after))}"
    return found
