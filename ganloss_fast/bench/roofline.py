"""What named GPUs could do at best: a model, not a measurement.

A call takes at least the time of its launches and at least the time of its bytes at the memory's
speed. Ours is modelled with the launches of its kernels, of which the backward reads again what the
forward read; the code as written with one launch an operator and, at best, ``PASSES`` times the
bytes that must move. Nothing of this was measured on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ganloss_fast.bench.results import Row, by_workload
from ganloss_fast.bench.workload import EAGER, OURS

LAUNCH_MICROSECONDS = 3.0  # of a small kernel on a stream that is kept full
LAUNCHES = 2  # of ours: forward and backward
AGAIN = 1.5  # how often ours moves the bytes that must move: the backward reads them again
PASSES = 3.0  # how often code as written does, at the very least


@dataclass(frozen=True)
class Gpu:
    """As its maker states it."""

    name: str
    GB_per_s: float


GPUS = (
    Gpu("T4", 320),
    Gpu("RTX 4090", 1008),
    Gpu("A100 80 GB (SXM)", 2039),
    Gpu("H100 (SXM)", 3350),
    Gpu("H200", 4800),
)


@dataclass(frozen=True)
class Modelled:
    """One workload on one GPU."""

    workload: str
    gpu: str
    bytes: int  # the least that must move
    ours_us: float
    written_us: float

    @property
    def bound(self) -> str:
        return "launches" if self.ours_us <= LAUNCHES * LAUNCH_MICROSECONDS else "memory"

    @property
    def ratio(self) -> float:
        return self.written_us / self.ours_us


def floor_us(gpu: Gpu, moved: float, launches: int) -> float:
    """The least time: the greater of what the bytes and what the launches take."""
    return max(launches * LAUNCH_MICROSECONDS, moved / gpu.GB_per_s / 1e3)


def ours_us(gpu: Gpu, moved: float) -> float:
    """The least time of ours."""
    return floor_us(gpu, AGAIN * moved, LAUNCHES)


def launch_bound_bytes(gpu: Gpu) -> float:
    """Up to which ours takes the time of its launches."""
    return LAUNCHES * LAUNCH_MICROSECONDS * 1e3 * gpu.GB_per_s / AGAIN


def model(rows: Sequence[Row], gpus: Sequence[Gpu] = GPUS) -> list[Modelled]:
    """Of every workload whose bytes and operators are known."""
    found = []
    for workload, group in by_workload(rows).items():
        written = group.get(EAGER)
        if written is None or OURS not in group or not written.bytes or not written.operators:
            continue
        moved, operators = written.bytes, written.operators
        found += [
            Modelled(
                workload,
                gpu.name,
                moved,
                ours_us(gpu, moved),
                floor_us(gpu, PASSES * moved, operators),
            )
            for gpu in gpus
        ]
    return found
