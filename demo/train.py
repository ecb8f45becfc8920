"""Trains a small GAN on photographs twice, with plain PyTorch losses and with ganloss_fast.

Both runs start from the same seeds and see the same batches. They take turns step by step in
one process, so that a busy machine slows both alike.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from demo import pictures, summary
from demo.memory import measure_peaks
from demo.networks import SIZES, draw_latents
from demo.objectives import LOSSES, OBJECTIVES, has_penalty
from demo.steplog import StepLog
from demo.training import (
    Settings,
    StepRecord,
    Trainer,
    gradient_disagreement,
    penalty_seconds,
)
from ganloss_fast.bench import machine
from ganloss_fast.bench.recording import write_json
from ganloss_fast.bench.train.photographs import load_crops

CROPS = 4096
SAMPLES = 48
CHECKS = 12
SNAPSHOTS = 6


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text}")
    return value


def positive_minutes(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"expected a time above 0, got {text}")
    return value


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo.train", description=__doc__)
    parser.add_argument("--loss", choices=LOSSES, default="wasserstein-gp")
    parser.add_argument("--steps", type=positive, default=700, help="training steps of each run")
    parser.add_argument("--batch", type=positive, default=32)
    parser.add_argument("--size", type=int, choices=SIZES, default=32, help="pixels of an image")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=positive, help="default: as many as torch chooses")
    parser.add_argument(
        "--minutes", type=positive_minutes, default=8.0, help="end the training then (default: 8)"
    )
    parser.add_argument("--data", type=Path, help="folder of pictures instead of scikit-image's")
    parser.add_argument("--out", type=Path, default=Path("demo-results"), help="folder of results")
    parser.add_argument("--tensorboard", action="store_true", help="write TensorBoard scalars too")
    options = parser.parse_args(arguments)
    if options.batch < 2:
        parser.error("--batch: batch norm in the generator needs at least 2 images")
    if options.out.exists() and not options.out.is_dir():
        parser.error(f"--out: {options.out} is a file, not a folder")
    return options


class Demo:
    """The two runs, what they have recorded so far, and what is left of it on disk."""

    def __init__(self, settings: Settings, crops: Tensor, out: Path) -> None:
        self.settings = settings
        self.crops = crops
        self.out = out
        self.trainers = [Trainer(build(settings.loss), settings, crops) for build in OBJECTIVES]
        self.names = [trainer.objective.name for trainer in self.trainers]
        self.records: dict[str, list[StepRecord]] = {name: [] for name in self.names}
        self.checks: list[tuple[float, float]] = []
        self.penalty_seconds: list[list[float]] = []
        self.snapshots: list[tuple[int, Tensor]] = []
        self.latents = draw_latents(SAMPLES, torch.Generator().manual_seed(settings.seed + 1))

    def train(self, steps: int, seconds: float, log: StepLog, console: Console) -> str:
        """Returns why it ended: "completed", "interrupted" or "out of time"."""
        deadline = time.monotonic() + seconds
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}"),
        )
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("training", total=steps, losses="")
            try:
                for step in range(steps):
                    self._observe(step, steps)
                    self._step(step, log)
                    losses = self.records[self.names[1]][-1]
                    progress.update(
                        task,
                        advance=1,
                        losses=f"critic {losses.critic_loss:7.3f}  "
                        f"generator {losses.generator_loss:7.3f}",
                    )
                    if time.monotonic() > deadline:
                        return "completed" if step + 1 == steps else "out of time"
            except KeyboardInterrupt:
                return "interrupted"
        return "completed"

    def _step(self, step: int, log: StepLog) -> None:
        """One step of each run; who goes first alternates, for the caches' sake."""
        for trainer in self.trainers if step % 2 == 0 else reversed(self.trainers):
            record = trainer.step()
            self.records[trainer.objective.name].append(record)
            log.write(step, trainer.objective.name, record)

    def _observe(self, step: int, steps: int) -> None:
        """Beside the steps: does the loss agree at equal weights, what does the penalty take,
        and what do samples look like."""
        first, second = self.trainers
        objectives = (first.objective, second.objective)
        if step % -(-steps // CHECKS) == 0:
            self.checks.append(gradient_disagreement(second, *objectives))
            if has_penalty(self.settings.loss):
                self.penalty_seconds.append(penalty_seconds(second, objectives))
        if step % -(-steps // SNAPSHOTS) == 0:
            self.snapshots.append((step, second.samples(self.latents)))

    def report(self, outcome: str, peaks: Sequence[int], console: Console) -> None:
        """Writes JSON and pictures, and prints the table."""
        steps = min(len(records) for records in self.records.values())
        if steps == 0:
            console.print("Stopped before the first step: nothing to report.")
            return
        records = {name: steps_of[:steps] for name, steps_of in self.records.items()}
        runs = [
            summary.summarise_run(name, records[name], self.settings.batch, peak)
            for name, peak in zip(self.names, peaks)
        ]
        ratios = summary.summarise_ratios(records)
        agreement = summary.summarise_agreement(records, self.checks)
        penalty = summary.summarise_penalty(self.penalty_seconds, runs[0])
        write_json(
            self.out / "summary.json",
            {
                "outcome": outcome,
                "steps": steps,
                "settings": asdict(self.settings),
                "machine": machine.facts(),
                **summary.as_json(runs, ratios, agreement, penalty),
            },
        )
        samples = {t.objective.name: t.samples(self.latents) for t in self.trainers}
        self.snapshots.append((steps, samples[self.names[1]]))
        pictures.draw_samples(self.out / "samples.png", self.crops[self._shown()], samples, steps)
        pictures.draw_progress(self.out / "progress.png", self.snapshots)
        pictures.draw_losses(self.out / "losses.png", records, self.settings.loss)
        title = (
            f"{self.settings.loss}, {self.settings.size}x{self.settings.size}, batch "
            f"{self.settings.batch}, {steps} steps, threads: {torch.get_num_threads()}"
        )
        pictures.draw_throughput(self.out / "throughput.png", runs, ratios, title)
        console.print(summary.table(runs, ratios, agreement, penalty, title))
        if penalty:
            console.print(summary.explain(penalty, ratios["critic_step"]))
        console.print(
            "The generator step gains because the critic is frozen in it. Outside the losses "
            "the two runs do the same work."
        )
        console.print(f"{outcome.capitalize()}. Results and pictures are in {self.out}")

    def _shown(self) -> Tensor:
        """Crops for the picture: an equal share of every photograph, mixed."""
        spread = torch.linspace(0, len(self.crops) - 1, SAMPLES).long()
        return spread[torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(0))]


def _interrupt(signal_number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 1 for unusable data, 130 when interrupted."""
    options = parse_arguments(arguments)
    console = Console()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    settings = Settings(options.loss, options.size, options.batch, options.seed)
    try:
        crops = load_crops(options.data, options.size, CROPS, options.seed)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    previous = signal.signal(signal.SIGTERM, _interrupt)  # `kill` keeps results as Ctrl-C does
    try:
        demo = Demo(settings, crops, options.out)
        with StepLog(options.out, demo.names, options.tensorboard) as log:
            outcome = demo.train(options.steps, 60 * options.minutes, log, console)
        interrupted = outcome == "interrupted"
        peaks = [0, 0] if interrupted else measure_peaks(settings)
        demo.report(outcome, peaks, console)
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 130 if interrupted else 0


if __name__ == "__main__":
    sys.exit(main())
