"""Measures every op on a GPU against what people write instead, and against the memory's speed.

    python -m benchmarks.gpu                  everything, into benchmarks/results/gpu-<device>
    python -m benchmarks.gpu --dry-run        a few rounds on the CPU: does the program work?

The contenders are the loss as people write it, torch.compile of that, CUDA graphs of both, and
ours for every backend, also as a CUDA graph. For each op, direction, size, dtype and contender,
one CSV line, written as soon as it is measured: microseconds (p20, p50, p80), the bandwidth that
they mean for the bytes that must move, its share of the copy bandwidth that was measured on this
device, and the number of kernel launches. What matters most comes first, so that --seconds may
cut it off anywhere.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

import ganloss_fast
from benchmarks.gpu_cases import SECOND_ORDER, Case, cases
from ganloss_fast import backends
from ganloss_fast.bench import machine, runner, timing
from ganloss_fast.bench.argument_types import folder, positive
from ganloss_fast.bench.cuda_graph import capture
from ganloss_fast.bench.recording import CsvFile, write_json
from ganloss_fast.bench.timing import Clock, Timing, Work

RESULTS = Path(__file__).resolve().parent / "results"


# ---- how it is measured ------------------------------------------------------------------------


def launches(work: Callable[[], object], device: torch.device) -> int | None:
    """Kernels and memory operations that one call puts on the device; None on the CPU."""
    if device.type != "cuda":
        return None
    activity = torch.profiler.ProfilerActivity.CUDA
    torch.cuda.synchronize(device)
    with torch.profiler.profile(activities=[activity]) as profile:
        work()
        torch.cuda.synchronize(device)
    on_device = torch.autograd.DeviceType.CUDA
    return sum(1 for event in profile.events() if event.device_type == on_device)


def copy_bandwidth(device: torch.device, clock: Clock, rounds: int, elements: int) -> float:
    """GB/s of a copy: what reading and writing memory can reach on this device."""
    source = torch.empty(elements, device=device)
    target = torch.empty_like(source)
    taken = timing.measure(lambda: target.copy_(source), clock, rounds)
    return 2 * 4 * elements / taken.seconds / 1e9


AS_WRITTEN = "as written"
Build = Callable[[], Work]


def contenders(
    case: Case, device: torch.device, served: list[str]
) -> Iterator[tuple[str, str, Build]]:
    """Who computes, in which mode, and how to build it. Compiling takes long, so it comes last."""

    def ours() -> Work:
        return case.build(device, lambda forward: forward, True)

    def theirs() -> Work:
        return case.build(device, lambda forward: forward, False)

    def compiled() -> Work:
        torch.compiler.reset()
        return case.build(device, lambda forward: torch.compile(forward, dynamic=False), False)

    yield AS_WRITTEN, "eager", theirs
    for backend in served:
        yield backend, "eager", ours
        if device.type == "cuda":
            yield backend, "captured", lambda: capture(ours())[0].replay
    if device.type == "cuda":
        yield AS_WRITTEN, "captured", lambda: capture(theirs())[0].replay
    # The second order of a compiled function is nothing that torch has.
    if case.direction != SECOND_ORDER:
        yield AS_WRITTEN, "compiled", compiled
        if device.type == "cuda":
            yield AS_WRITTEN, "compiled, captured", lambda: capture(compiled())[0].replay


def measure(
    who: str, build: Build, device: torch.device, clock: Clock, rounds: int
) -> tuple[Timing, int | None]:
    """How long one contender takes, and how many launches."""
    with ganloss_fast.use_backend("auto" if who == AS_WRITTEN else who):
        work = build()
        return timing.measure(work, clock, rounds), launches(work, device)


def row(case: Case, who: str, mode: str, taken: Timing, launched: int | None, copy: float) -> dict:
    """The CSV line of one contender."""
    p20, p50, p80 = (1e6 * seconds for seconds in taken.spread())
    bandwidth = case.bytes_moved / p50 / 1e3
    return {
        "op": case.op,
        "direction": case.direction,
        "size": case.size,
        "dtype": case.dtype,
        "backend": who,
        "mode": mode,
        "p20_us": round(p20, 3),
        "p50_us": round(p50, 3),
        "p80_us": round(p80, 3),
        "bytes": case.bytes_moved,
        "GB_per_s": round(bandwidth, 2),
        "of_copy_bandwidth": round(bandwidth / copy, 4),
        "launches": launched,
    }


def available_backends(device: torch.device) -> list[str]:
    """Every backend with kernels for the device; why the others have none is printed."""
    found = []
    for backend in ("native", "triton"):
        reason = backends.why_not(backend, device.type)
        if reason is None:
            found.append(backend)
        else:
            print(f"without {backend}: {reason}")
    return found


def turns(
    dry_run: bool, device: torch.device, served: list[str]
) -> Iterator[tuple[Case, str, str, Build]]:
    """Everything that is quick to start, then what has to be compiled."""
    everything = [
        (case, who, mode, build)
        for case in cases(dry_run)
        for who, mode, build in contenders(case, device, served)
    ]
    yield from (turn for turn in everything if not turn[2].startswith("compiled"))
    yield from (turn for turn in everything if turn[2].startswith("compiled"))


# ---- results -----------------------------------------------------------------------------------


def plot(rows: list[dict], folder: Path) -> None:
    """For each op and direction: microseconds by size, one mark a contender, from p20 to p80."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    for op, direction in sorted({(row["op"], row["direction"]) for row in rows}):
        chosen = [
            row
            for row in rows
            if (row["op"], row["direction"], row["dtype"]) == (op, direction, "float32")
        ]
        sizes = list(dict.fromkeys(row["size"] for row in chosen))
        names = list(dict.fromkeys((row["backend"], row["mode"]) for row in chosen))
        figure, axes = pyplot.subplots(figsize=(4 + 2 * len(sizes), 4))
        for k, (backend, mode) in enumerate(names):
            by_size = {r["size"]: r for r in chosen if (r["backend"], r["mode"]) == (backend, mode)}
            # Marks, not bars: on a logarithmic axis the length of a bar means nothing.
            measured = [(s, by_size[size]) for s, size in enumerate(sizes) if size in by_size]
            middle = [row["p50_us"] for _, row in measured]
            axes.errorbar(
                [s + (k - (len(names) - 1) / 2) * 0.6 / len(names) for s, _ in measured],
                middle,
                [
                    [p50 - row["p20_us"] for p50, (_, row) in zip(middle, measured)],
                    [row["p80_us"] - p50 for p50, (_, row) in zip(middle, measured)],
                ],
                fmt="o",
                capsize=4,
                label=f"{backend}, {mode}",
            )
        axes.set_xticks(range(len(sizes)), sizes)
        axes.set_xlim(-0.5, len(sizes) - 0.5)
        axes.set_yscale("log")
        axes.set_ylabel("microseconds (p20, median, p80)")
        axes.set_title(f"{op}, {direction}, float32")
        axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
        figure.tight_layout()
        name = f"{op}-{direction}".replace(" ", "_").replace("+", "and")
        figure.savefig(folder / f"{name}.png", dpi=120)
        pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--rounds", type=positive, default=101)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--output", type=folder, help="folder for the results")
    parser.add_argument("--no-plots", action="store_true")
    arguments = parser.parse_args()
    if not arguments.dry_run and not torch.cuda.is_available():
        parser.error("no GPU: torch.cuda.is_available() is False. --dry-run works without one.")

    deadline = time.monotonic() + arguments.seconds
    device = torch.device("cpu" if arguments.dry_run else "cuda")
    rounds = 5 if arguments.dry_run else arguments.rounds
    facts = machine.facts(device)
    label = str(facts.get("gpu", "dry-run")).replace(" ", "-")
    out = arguments.output or folder(str(RESULTS / f"gpu-{label}"))
    clock = timing.clock_of(device)
    copy = copy_bandwidth(device, clock, rounds, 1 << (16 if arguments.dry_run else 28))
    print(f"{label}: copies at {copy:.0f} GB/s", flush=True)
    write_json(
        out / "gpu.json",
        {**facts, "clock": clock.name, "copy_GB_per_s": round(copy, 1), "rounds": rounds},
    )

    rows, failed = [], 0
    with CsvFile(out / "gpu.csv") as file:
        for case, who, mode, build in turns(arguments.dry_run, device, available_backends(device)):
            if time.monotonic() > deadline:
                print(f"stopped after {arguments.seconds:.0f} s with {len(rows)} rows")
                break
            label = f"{case.op:24}{case.direction:20}{case.size:32}{case.dtype:10}{who:12}{mode:20}"
            try:
                taken, launched = measure(who, build, device, clock, rounds)
            except Exception as error:  # one contender that fails leaves the others
                failed += 1
                print(f"{label} {runner.reason(error)}", flush=True)
                continue
            rows.append(row(case, who, mode, taken, launched, copy))
            file.write(rows[-1])
            print(
                f"{label}{rows[-1]['p50_us']:12.1f} us {rows[-1]['GB_per_s']:8.1f} GB/s", flush=True
            )
    if not arguments.no_plots:
        plot(rows, out)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
