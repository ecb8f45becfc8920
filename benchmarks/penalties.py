"""What gradient penalties cost besides time: arithmetic, memory, and the walk over the graph.

``benchmarks.record`` calls it, on one thread; results go to results/penalties.json.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import critics
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import ganloss_fast
from benchmarks.penalty_workloads import CRITICS, inputs_of, our_penalty, stock_penalty, trained
from ganloss_fast.bench import machine
from ganloss_fast.bench.memory import peak_memory
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
    # Calls 1, 2, 4, 8, ... ask whether samples interact; the others are those of a training.
    ratios = [seconds(chunks) / seconds(whole) for _ in range(7)]
    peaks = [peak_memory(work) / 2**20 for work in (whole, chunks)]
    return Memory(*peaks, median([ratios[k] for k in (2, 4, 5, 6)]))


# ---- what is reported --------------------------------------------------------------------------


def arithmetic_table(rows: Sequence[Arithmetic]) -> Table:
    result = Table(title="A penalty step, in forward passes", title_justify="left")
    for column in ("critic", "stock autograd", 'graph_cut="auto"', '"fast"'):
        result.add_column(column)
    for row in rows:
        result.add_row(row.critic, f"{row.stock:.2f}", f"{row.auto:.2f}", f"{row.fast:.2f}")
    return result


def walk_line(walk: GraphWalk) -> str:
    late = "" if walk.microseconds <= MOST_WALK_MICROSECONDS else " MISSED"
    return (
        f"Graph walk: {walk.microseconds:.0f} us (<= {MOST_WALK_MICROSECONDS}){late}, at best "
        f"{walk.quickest_microseconds:.0f} us, for {walk.nodes} nodes; {walk.edges_cut} edges cut."
    )


def memory_line(memory: Memory) -> str:
    much = "" if memory.chunks_megabytes <= MOST_OF_WHOLE * memory.whole_megabytes else " MISSED"
    return (
        f"Peak memory of R1 at {'x'.join(map(str, IMAGES))}: {memory.whole_megabytes:.0f} MB, with "
        f"chunk_size={CHUNK} {memory.chunks_megabytes:.0f} MB (<= {MOST_OF_WHOLE:.0%}){much}, in "
        f"{memory.time_ratio:.2f}x the time."
    )


@dataclass(frozen=True)
class Cost:
    """Something that is counted or measured beside the times of the workloads."""

    name: str
    key: str  # in the record
    measure: Callable[[], Any]  # a dataclass, or a list of them
    shown: Callable[[Any], Table | str]


COSTS = (
    Cost("penalty costs: arithmetic", "arithmetic", count_arithmetic, arithmetic_table),
    Cost("penalty costs: graph walk", "graph_walk", walk_graph, walk_line),
    Cost("penalty costs: peak memory", "memory", measure_memory, memory_line),
)


def measure(costs: Sequence[Cost], console: Console) -> dict[str, Any]:
    """Measures on one thread, shows it, and returns it for the record."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found: dict[str, Any] = {"machine": machine.facts()}
    try:
        for cost in costs:
            measured = cost.measure()
            console.print(cost.shown(measured))
            listed = isinstance(measured, list)
            found[cost.key] = [asdict(row) for row in measured] if listed else asdict(measured)
    finally:
        torch.set_num_threads(threads)
    return found
