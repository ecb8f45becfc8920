"""Whole training steps of the penalty critics on a GPU, with the graph cut off, auto and fast.

    python -m benchmarks.gpu_steps --output steps.csv
    python -m benchmarks.gpu_steps --dry-run          small, on the CPU: does the program work?

The step is WGAN-GP's: loss, penalty, backward, Adam. "as written" is the penalty as codebases
write it. Every row is written as soon as it is measured.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import critics
import torch
from torch import Tensor, nn

from benchmarks.penalty_workloads import our_penalty, stock_penalty, wasserstein_step
from ganloss_fast.bench import timing
from ganloss_fast.bench.recording import CsvFile

Step = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]
STEPS: dict[str, Step] = {
    "as written": wasserstein_step(stock_penalty),
    "off": wasserstein_step(our_penalty("off")),
    "auto": wasserstein_step(our_penalty("auto")),
    "fast": wasserstein_step(our_penalty("fast")),
}
# name: critic and the shape of its samples, at sizes that fill a GPU
CRITICS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "DCGAN": (lambda: critics.dcgan(64, 64), (64, 3, 64, 64)),
    "ResNet, spectral norm": (lambda: critics.SpectralResNet(128, 32), (64, 3, 32, 32)),
    "StyleGAN2": (lambda: critics.StyleGan2(32, 256), (16, 3, 256, 256)),
    "HiFi-GAN period": (lambda: critics.HifiGanPeriod(32), (16, 1, 8192)),
    "PatchGAN, InstanceNorm": (lambda: critics.patchgan(64), (16, 3, 256, 256)),
}
TINY: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "DCGAN": (lambda: critics.dcgan(4, 32), (2, 3, 32, 32))
}


def training_step(build: Callable[[], nn.Module], shape: tuple[int, ...], step: Step, device):
    """The work of one update, from the same weights and samples for every contender."""
    torch.manual_seed(0)
    critic = build().to(device)
    real, fake = (torch.randn(shape, device=device) for _ in range(2))
    alpha = torch.rand(shape[0], device=device)
    optimizer = torch.optim.Adam(critic.parameters(), 1e-4, betas=(0.0, 0.9))

    def update() -> None:
        optimizer.zero_grad()
        step(critic, real, fake, alpha).backward()
        optimizer.step()

    return update


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--output", type=Path, default=Path("steps.csv"))
    arguments = parser.parse_args()
    if not arguments.dry_run and not torch.cuda.is_available():
        parser.error("no GPU: torch.cuda.is_available() is False. --dry-run works without one.")
    deadline = time.monotonic() + arguments.seconds
    device = torch.device("cpu" if arguments.dry_run else "cuda")
    clock = timing.clock_of(device)
    rounds = 2 if arguments.dry_run else arguments.rounds
    with CsvFile(arguments.output) as file:
        for critic, (build, shape) in (TINY if arguments.dry_run else CRITICS).items():
            written = None
            for name, step in STEPS.items():
                if time.monotonic() > deadline:
                    print(f"stopped after {arguments.seconds:.0f} s")
                    return
                if device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                update = training_step(build, shape, step, device)
                taken = timing.measure(update, clock, rounds)
                p20, p50, p80 = (1e6 * seconds for seconds in taken.spread())
                written = p50 if name == "as written" else written
                row = {
                    "critic": critic,
                    "samples": "x".join(map(str, shape)),
                    "step": name,
                    "p20_us": round(p20, 1),
                    "p50_us": round(p50, 1),
                    "p80_us": round(p80, 1),
                    "times_faster": round((written or p50) / p50, 3),
                    "peak_MB": torch.cuda.max_memory_allocated() >> 20
                    if device.type == "cuda"
                    else "",
                }
                file.write(row)
                print(f"{critic:24}{name:12}{p50:12.0f} us  {row['times_faster']}x", flush=True)


if __name__ == "__main__":
    main()
