"""What gradient penalties cost besides time: arithmetic, memory, and the walk over the graph.

Times are in `benchmarks.run`. One thread; results go to results/penalties.json.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import ganloss_fast
from benchmarks import machine
from benchmarks.penalty_workloads import (
    CRITICS,
    critics,
    inputs_of,
    our_penalty,
    peak_memory,
    stock_penalty,
    trained,
)
from benchmarks.recording import write_json
from benchmarks.run import RESULTS
from ganloss_fast.diagnose import CountFlops
from ganloss_fast.graph_cut.second_order import cut

WALKS = 60
MOST_WALK_MICROSECONDS = 60
IMAGES = (16, 3, 256, 256)
CHUNK = 2
MOST_OF_WHOLE = 0.25  # peak memory of chunks


@dataclass(frozen=True)
class Arithmetic:
    """FLOPs of a penalty step over those of one forward pass."""

    critic: str
    stock: float
    auto: float
    fast: float


@dataclass(frozen=True)
class GraphWalk:
    """Finding and removing edges in a graph that was just made."""

    nodes: int
    edges_cut: int
    microseconds: float
    quickest_microseconds: float


@dataclass(frozen=True)
class Memory:
    """Peak of R1 on a DCGAN critic, above what was there before."""

    whole_megabytes: float
    chunks_megabytes: float
    time_ratio: float  # chunks / whole


def flops(function: Callable[[], object]) -> int:
    with CountFlops() as counter:
        function()
    return counter.total


def count_arithmetic() -> list[Arithmetic]:
    rows = []
    for name, (make, shape, *_) in CRITICS.items():
        torch.manual_seed(0)
        critic, inputs = make(), inputs_of(shape, torch.device("cpu"))
        with torch.no_grad():
            forward = flops(lambda: critic(inputs[0]))  # noqa: B023 (called here)
        counts = [
            flops(trained(critic, step, inputs)) / forward
            for step in (stock_penalty, our_penalty("auto"), our_penalty("fast"))
        ]
        rows.append(Arithmetic(name, *counts))
    return rows


def walk_graph() -> GraphWalk:
    """Of a critic with about 250 nodes."""
    critic = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        *(layer for _ in range(42) for layer in (nn.Conv2d(4, 4, 3, padding=1), nn.LeakyReLU(0.2))),
        nn.Conv2d(4, 1, 3),
    )
    seconds = []
    for _ in range(WALKS):
        x = torch.randn(1, 3, 8, 8, requires_grad=True)
        grads = list(torch.autograd.grad(critic(x).sum(), x, create_graph=True))
        started = time.perf_counter()
        result = cut(grads)
        seconds.append(time.perf_counter() - started)
        nodes, edges = result.nodes, result.cut
        del result  # the graph goes here, not within the next measurement
    return GraphWalk(nodes, edges, 1e6 * median(seconds), 1e6 * min(seconds))


def measure_memory() -> Memory:
    critic = critics.dcgan(16, IMAGES[-1])
    x = torch.randn(IMAGES)

    def step(chunk_size: int | None) -> Callable[[], None]:
        def run() -> None:
            critic.zero_grad()
            ganloss_fast.r1_penalty(
                critic, x, how=ganloss_fast.Differentiation(chunk_size=chunk_size)
            ).backward()

        return run

    def seconds(work: Callable[[], None]) -> float:
        started = time.process_time()
        work()
        return time.process_time() - started

    whole, chunks = step(None), step(CHUNK)
    ratios = [seconds(chunks) / seconds(whole) for _ in range(4)]  # the first warms up
    peaks = [peak_memory(work) / 2**20 for work in (whole, chunks)]
    return Memory(*peaks, median(ratios[1:]))


def table(rows: Sequence[Arithmetic]) -> Table:
    result = Table(title="A penalty step, in forward passes", title_justify="left")
    for column in ("critic", "stock autograd", 'graph_cut="auto"', '"fast"'):
        result.add_column(column)
    for row in rows:
        result.add_row(row.critic, f"{row.stock:.2f}", f"{row.auto:.2f}", f"{row.fast:.2f}")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.penalties", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    console = Console(width=None if sys.stdout.isatty() else 120)

    arithmetic = count_arithmetic()
    console.print(table(arithmetic))
    walk = walk_graph()
    late = "" if walk.microseconds <= MOST_WALK_MICROSECONDS else " MISSED"
    console.print(
        f"Graph walk: {walk.microseconds:.0f} us (<= {MOST_WALK_MICROSECONDS}){late}, at best "
        f"{walk.quickest_microseconds:.0f} us, for {walk.nodes} nodes; {walk.edges_cut} edges cut."
    )
    memory = measure_memory()
    much = "" if memory.chunks_megabytes <= MOST_OF_WHOLE * memory.whole_megabytes else " MISSED"
    console.print(
        f"Peak memory of R1 at {'x'.join(map(str, IMAGES))}: {memory.whole_megabytes:.0f} MB, with "
        f"chunk_size={CHUNK} {memory.chunks_megabytes:.0f} MB (<= {MOST_OF_WHOLE:.0%}){much}, in "
        f"{memory.time_ratio:.2f}x the time."
    )
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(
        options.out / "penalties.json",
        {
            "machine": machine.facts(),
            "arithmetic": [asdict(row) for row in arithmetic],
            "graph_walk": asdict(walk),
            "memory": asdict(memory),
        },
    )
    console.print(f"Recorded in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
