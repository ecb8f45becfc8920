"""The demo's pictures, for somebody who sees them without having read anything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from demo.summary import RunSummary
from demo.tiles import GRID_COLUMNS, show
from demo.training import StepRecord

COLOURS = ("#c0563b", "#1f6f8b")  # plain PyTorch, ganloss_fast
INK = "#333333"


def draw_samples(path: Path, photographs: Tensor, samples: Mapping[str, Tensor], step: int) -> None:
    """Photographs next to what each run generates from the same latents."""
    panels = {"photographs (training data)": photographs}
    panels |= {f"{name}: samples after {step} steps": images for name, images in samples.items()}
    figure = Figure(figsize=(4.6 * len(panels), 3.8), layout="constrained")
    axes = figure.subplots(1, len(panels))
    for axis, (title, images) in zip(axes, panels.items()):
        show(axis, images)
        axis.set_title(title, fontsize=11, color=INK)
        axis.axis("off")
    figure.savefig(path, dpi=110)


def draw_progress(path: Path, snapshots: Sequence[tuple[int, Tensor]]) -> None:
    """A few samples of one run, one row for each moment, one column for each latent."""
    figure = Figure(figsize=(7, 0.9 * len(snapshots) + 0.6), layout="constrained")
    axes = figure.subplots(len(snapshots), 1, squeeze=False)[:, 0]
    for axis, (step, images) in zip(axes, snapshots):
        show(axis, images[:GRID_COLUMNS])
        axis.set_ylabel(f"step {step}", rotation=0, ha="right", va="center", color=INK)
        axis.set_xticks([])
        axis.set_yticks([])
        for spine in axis.spines.values():
            spine.set_visible(False)
    figure.suptitle("ganloss_fast learning: the same latents over time", fontsize=11, color=INK)
    figure.savefig(path, dpi=110)


def _smooth(values: Sequence[float], window: int) -> np.ndarray:
    """Moving average over the last ``window`` values."""
    sums = np.cumsum(np.insert(np.asarray(values, dtype=float), 0, 0.0))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """A range that holds all but single spikes."""
    low, high = np.percentile(values, [0.5, 99.5])
    margin = 0.05 * max(high - low, 1e-6)
    return low - margin, high + margin


def draw_losses(path: Path, records: Mapping[str, Sequence[StepRecord]], loss: str) -> None:
    """Loss curves of both runs: raw faint, smoothed strong."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    axes = figure.subplots(1, 2)
    titles = {"critic_loss": "critic (discriminator) loss", "generator_loss": "generator loss"}
    for axis, (field, title) in zip(axes, titles.items()):
        for (name, steps), colour, style in zip(records.items(), COLOURS, ("-", "--")):
            values = [getattr(record, field) for record in steps]
            smooth = _smooth(values, max(1, len(values) // 40))
            axis.plot(values, color=colour, alpha=0.18, linewidth=0.8)
            axis.plot(smooth, color=colour, linewidth=1.9, linestyle=style, label=name)
        raw = [getattr(record, field) for steps in records.values() for record in steps]
        axis.set_ylim(*_limits(raw))
        axis.set_title(title, fontsize=11, color=INK)
        axis.set_xlabel("training step")
        _tidy(axis)
    axes[0].legend(frameon=False)
    figure.suptitle(
        f"{loss}: same seeds, same batches. Rounding makes the runs drift apart, as any two GAN "
        "runs do",
        fontsize=11,
        color=INK,
    )
    figure.savefig(path, dpi=110)


def draw_throughput(
    path: Path, summaries: Sequence[RunSummary], ratios: Mapping[str, float], settings: str
) -> None:
    """Bars: milliseconds of each step, and images per second, with the speed-ups."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    axes = figure.subplots(1, 3)
    panels = [
        ("critic step, ms", "critic_step", [s.critic_milliseconds for s in summaries]),
        ("generator step, ms", "generator_step", [s.generator_milliseconds for s in summaries]),
        ("images per second", "whole_step", [s.images_per_second for s in summaries]),
    ]
    names = [summary.name for summary in summaries]
    for axis, (title, part, values) in zip(axes, panels):
        bars = axis.bar(names, values, color=COLOURS, width=0.6)
        axis.bar_label(bars, fmt="%.1f", padding=2, color=INK)
        axis.set_title(f"{title}: {ratios[part]:.2f}x faster", fontsize=11, color=INK)
        axis.set_ylim(0, max(values) * 1.15)
        _tidy(axis)
    figure.suptitle(settings, fontsize=11, color=INK)
    figure.savefig(path, dpi=110)


def _tidy(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(colors=INK)
