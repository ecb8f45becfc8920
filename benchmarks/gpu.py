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
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import ganloss_fast
from benchmarks import machine, plain, timing
from benchmarks.recording import CsvFile, write_json
from benchmarks.timing import Clock, Timing, Work
from ganloss_fast import backends, ops
from ganloss_fast.ops import terms
from ganloss_fast.ops.terms import Segment

RESULTS = Path(__file__).resolve().parent / "results"
DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}
FORWARD, BACKWARD, SECOND_ORDER = "forward", "forward + backward", "up to second order"
DIRECTIONS = (FORWARD, BACKWARD, SECOND_ORDER)


# ---- what is measured --------------------------------------------------------------------------


Wrap = Callable[[Work], Work]


@dataclass(frozen=True)
class Case:
    """One op and direction at one size. ``build`` draws the inputs and returns the work, ours or
    as people write it; it gives the forward pass to ``wrap`` first: to torch.compile, or to
    nobody.

    ``bytes_moved`` is the least that any implementation must read and write.
    """

    op: str
    direction: str
    size: str
    dtype: str
    bytes_moved: int
    build: Callable[[torch.device, Wrap, bool], Work]


# HiFi-GAN's eight discriminators and their feature maps for 8192 samples, without the batch:
# of the multi-period ones (channels, time) for each period, of the multi-scale ones alike.
HIFIGAN_LOGITS = [(1, 380), (1, 254), (1, 152), (1, 109), (1, 69), (1, 128), (1, 65), (1, 33)]
HIFIGAN_MAPS = [
    *[(c, 8192 // 3**k) for _ in range(5) for k, c in enumerate((32, 128, 512, 1024, 1024), 1)],
    *[
        (c, 8192 >> k)
        for _ in range(3)
        for k, c in enumerate((128, 128, 256, 512, 1024, 1024, 1024))
    ],
]


def _batch(size: int, shapes: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    return [(size, *shape) for shape in shapes]


# name of the loss: what it is measured on, the most telling first
LOSS_SHAPES: dict[str, dict[str, list[tuple[int, ...]]]] = {
    "hinge": {"64 logits": [(64, 1)], "100M logits": [(100_000_000,)]},
    "least_squares": {"HiFi-GAN's 8 outputs, batch 16": _batch(16, HIFIGAN_LOGITS)},
    "abs pairs": {
        "HiFi-GAN's 46 maps, batch 1": _batch(1, HIFIGAN_MAPS),
        "HiFi-GAN's 46 maps, batch 16": _batch(16, HIFIGAN_MAPS),
    },
    "bce": {
        "16x1x62x62": [(16, 1, 62, 62)],
        "3 maps, 32 images": [(32, 1, 126, 126), (32, 1, 62, 62), (32, 1, 30, 30)],
        "16M logits": [(1 << 24,)],
    },
}
PENALTY_SHAPES = {
    "64x3x64x64": (64, 3, 64, 64),
    "16x3x1024x1024": (16, 3, 1024, 1024),
    "65536x2": (65536, 2),
}
TINY = {name: {"tiny": [(8, 1), (3, 5)]} for name in ("hinge", "abs pairs")}
TINY_PENALTY = {"tiny": (4, 3, 5)}


def _elements(shapes: list[tuple[int, ...]]) -> int:
    return sum(torch.Size(shape).numel() for shape in shapes)


def _draw(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.randn(shape, device=device, dtype=torch.float32).to(dtype).requires_grad_()


def _differentiated(forward: Callable[[], Tensor], leaves: list[Tensor], direction: str) -> Work:
    """The forward pass, and as many derivatives as the direction says."""
    if direction == FORWARD:
        return torch.no_grad()(forward)
    if direction == BACKWARD:
        return lambda: torch.autograd.grad(forward(), leaves)
    directions = [torch.randn_like(leaf) for leaf in leaves]

    def twice() -> object:
        first = torch.autograd.grad(forward(), leaves, create_graph=True)
        return torch.autograd.grad(first, leaves, directions, allow_unused=True)

    return twice


def _loss(name: str, real: list[Tensor], fake: list[Tensor], ours: bool) -> Tensor:
    if name == "abs pairs":
        if not ours:
            return plain.feature_loss(real, fake)
        pairs = [Segment(f, terms.ABSOLUTE, 2.0, r) for r, f in zip(real, fake)]
        return ops.multi_tensor_loss(pairs).total
    if ours:
        return ganloss_fast.discriminator_loss(real, fake, name)
    losses = [plain.DISCRIMINATOR_LOSSES[name](r, f) for r, f in zip(real, fake)]
    return sum(losses[1:], losses[0])


def loss_case(name: str, size: str, shapes: list, dtype: str, direction: str) -> Case:
    """A discriminator loss, or the feature matching of pairs, over a list."""
    n, width = _elements(shapes), DTYPES[dtype].itemsize
    # Real and fake are read; read again, and gradients written; read again with directions, and
    # their gradients written.
    passes = {FORWARD: 1, BACKWARD: 3, SECOND_ORDER: 6}[direction]
    moved = 2 * n * width * passes

    def build(device: torch.device, wrap: Wrap, ours: bool) -> Work:
        real = [_draw(shape, DTYPES[dtype], device) for shape in shapes]
        fake = [_draw(shape, DTYPES[dtype], device) for shape in shapes]
        forward = wrap(lambda: _loss(name, real, fake, ours))
        return _differentiated(forward, [*real, *fake], direction)

    return Case(name, direction, size, dtype, moved, build)


def penalty_case(size: str, shape: tuple[int, ...], dtype: str, direction: str) -> Case:
    n, width = torch.Size(shape).numel(), DTYPES[dtype].itemsize
    # The second order needs <gradient, direction> before it can begin.
    passes = {FORWARD: 1, BACKWARD: 3, SECOND_ORDER: 8}[direction]
    moved = n * width * passes

    def build(device: torch.device, wrap: Wrap, ours: bool) -> Work:
        gradient = _draw(shape, DTYPES[dtype], device)

        def forward() -> Tensor:
            if ours:
                return ops.norm_penalty(gradient, "two_sided", 1.0, 10.0)[0]
            return 10.0 * plain.penalty(gradient)

        return _differentiated(wrap(forward), [gradient], direction)

    return Case("norm_penalty", direction, size, dtype, moved, build)


def interpolate_case(size: str, shape: tuple[int, ...], dtype: str) -> Case:
    moved = 3 * torch.Size(shape).numel() * DTYPES[dtype].itemsize

    def build(device: torch.device, wrap: Wrap, ours: bool) -> Work:
        real, fake = (_draw(shape, DTYPES[dtype], device).detach() for _ in range(2))
        alpha = torch.rand(shape[0], device=device)
        if ours:
            return wrap(lambda: ops.interpolate(real, fake, alpha))
        spread = alpha.view(-1, *[1] * (len(shape) - 1)).to(real.dtype)
        return wrap(lambda: plain.interpolate(real, fake, spread))

    return Case("interpolate", FORWARD, size, dtype, moved, build)


def perturb_case(size: str, shape: tuple[int, ...], dtype: str) -> Case:
    moved = 2 * torch.Size(shape).numel() * DTYPES[dtype].itemsize

    def build(device: torch.device, wrap: Wrap, ours: bool) -> Work:
        inputs, seed = _draw(shape, DTYPES[dtype], device).detach(), torch.tensor(7, device=device)
        if ours:
            return wrap(lambda: ops.perturb(inputs, 0.01, seed))
        return wrap(lambda: inputs + 0.01 * torch.randn_like(inputs))

    return Case("perturb", FORWARD, size, dtype, moved, build)


def cases(dry_run: bool) -> list[Case]:
    """Training steps in the two usual precisions first, then the rest."""
    losses, batches = (TINY, TINY_PENALTY) if dry_run else (LOSS_SHAPES, PENALTY_SHAPES)
    found = []
    for dtypes, directions in (
        (("float32", "bfloat16"), (BACKWARD, FORWARD)),
        (("float32",), (SECOND_ORDER,)),
        (("float16", "float64"), (BACKWARD,)),
    ):
        for dtype in dtypes[: 1 if dry_run else None]:
            for direction in directions:
                for loss, shapes in losses.items():
                    for size, listed in shapes.items():
                        found.append(loss_case(loss, size, listed, dtype, direction))
                for size, shape in batches.items():
                    found.append(penalty_case(size, shape, dtype, direction))
            if FORWARD in directions:
                found += [interpolate_case(size, shape, dtype) for size, shape in batches.items()]
                found += [perturb_case(size, shape, dtype) for size, shape in batches.items()]
    return found


# ---- how it is measured ------------------------------------------------------------------------


def captured(work: Callable[[], object]) -> Callable[[], object]:
    """The work as a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


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
            yield backend, "captured", lambda: captured(ours())
    if device.type == "cuda":
        yield AS_WRITTEN, "captured", lambda: captured(theirs())
    # The second order of a compiled function is nothing that torch has.
    if case.direction != SECOND_ORDER:
        yield AS_WRITTEN, "compiled", compiled
        if device.type == "cuda":
            yield AS_WRITTEN, "compiled, captured", lambda: captured(compiled())


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
    parser.add_argument("--rounds", type=int, default=101)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--output", type=Path, help="folder for the results")
    parser.add_argument("--no-plots", action="store_true")
    arguments = parser.parse_args()
    if not arguments.dry_run and not torch.cuda.is_available():
        parser.error("no GPU: torch.cuda.is_available() is False. --dry-run works without one.")

    deadline = time.monotonic() + arguments.seconds
    device = torch.device("cpu" if arguments.dry_run else "cuda")
    rounds = 5 if arguments.dry_run else arguments.rounds
    facts = machine.facts(device)
    label = str(facts.get("gpu", "dry-run")).replace(" ", "-")
    folder = arguments.output or RESULTS / f"gpu-{label}"
    folder.mkdir(parents=True, exist_ok=True)
    clock = timing.clock_of(device)
    copy = copy_bandwidth(device, clock, rounds, 1 << (16 if arguments.dry_run else 28))
    print(f"{label}: copies at {copy:.0f} GB/s", flush=True)
    write_json(
        folder / "gpu.json",
        {**facts, "clock": clock.name, "copy_GB_per_s": round(copy, 1), "rounds": rounds},
    )

    rows, failed = [], 0
    with CsvFile(folder / "gpu.csv") as file:
        for case, who, mode, build in turns(arguments.dry_run, device, available_backends(device)):
            if time.monotonic() > deadline:
                print(f"stopped after {arguments.seconds:.0f} s with {len(rows)} rows")
                break
            label = f"{case.op:24}{case.direction:20}{case.size:32}{case.dtype:10}{who:12}{mode:20}"
            try:
                taken, launched = measure(who, build, device, clock, rounds)
            except Exception as error:  # one contender that fails leaves the others
                failed += 1
                print(f"{label} failed: {str(error).splitlines()[0][:120]}", flush=True)
                continue
            rows.append(row(case, who, mode, taken, launched, copy))
            file.write(rows[-1])
            print(
                f"{label}{rows[-1]['p50_us']:12.1f} us {rows[-1]['GB_per_s']:8.1f} GB/s", flush=True
            )
    if not arguments.no_plots:
        plot(rows, folder)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
