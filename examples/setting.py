"""What every example stands on: its options, photographs, a log of losses, a picture at the end."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from demo.tiles import show
from ganloss_fast.bench.train.photographs import load_crops

WIDTH, HEIGHT, DOTS_PER_INCH = 1210, 440, 110  # of the picture
CROPS = 640

Panel = Callable[[Axes], None]


def parser(description: str, *, steps: int, batch: int, size: int) -> argparse.ArgumentParser:
    """The options of all examples, with an example's own defaults."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--losses", choices=("reference", "fast"), default="fast")
    options.add_argument("--steps", type=int, default=steps)
    options.add_argument("--batch", type=int, default=batch)
    options.add_argument("--size", type=int, default=size, help="of a sample")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--double", action="store_true", help="float64 throughout")
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--picture", type=Path, metavar="FILE", help="a PNG of the end")
    return options


def start(options: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the options; from here on tensors are made in their dtype, on their device."""
    chosen = options.parse_args(arguments)
    torch.manual_seed(chosen.seed)
    if chosen.double:
        torch.set_default_dtype(torch.float64)
    if chosen.device != "cpu":
        torch.set_default_device(chosen.device)
    return chosen


def photographs(size: int) -> Tensor:
    """[CROPS, 3, size, size] in [-1, 1]: crops of five photographs, one after the other."""
    with torch.device("cpu"):
        crops = load_crops(None, size, CROPS, seed=0)
    return crops.to(torch.get_default_device(), torch.get_default_dtype())


def draw(data: Tensor, count: int) -> Tensor:
    """A batch of the data, at random."""
    return data[torch.randint(len(data), (count,))]


class Log:
    """Losses and CPU seconds of every step; prints five lines on the way, unless silent."""

    def __init__(self, steps: int, silent: bool = False) -> None:
        self.every, self.silent = max(1, steps // 5), silent
        self.losses: dict[str, list[Tensor]] = {}
        self.seconds: list[float] = []
        self.began = time.process_time()

    def add(self, **losses: Tensor) -> None:
        for name, loss in losses.items():
            self.losses.setdefault(name, []).append(loss.detach())
        self.seconds.append(time.process_time() - self.began)
        if not self.silent and len(self.seconds) % self.every == 0:
            shown = "  ".join(f"{name} {loss.item():8.4f}" for name, loss in losses.items())
            print(f"step {len(self.seconds):5}  {shown}  {1e3 * median(self.seconds):7.1f} ms")
        self.began = time.process_time()

    def curves(self) -> dict[str, list[float]]:
        return {name: torch.stack(losses).tolist() for name, losses in self.losses.items()}

    def draw(self, file: Path | None, title: str, panels: Mapping[str, Panel]) -> None:
        """The loss curves, and beside them whatever the example shows."""
        if file is None:
            return
        size = (WIDTH / DOTS_PER_INCH, HEIGHT / DOTS_PER_INCH)
        figure = Figure(figsize=size, layout="constrained")
        first, *others = figure.subplots(1, 1 + len(panels))
        for name, curve in self.curves().items():
            first.plot(range(1, len(curve) + 1), curve, label=name, linewidth=1)
        first.set_xlabel("step")
        first.set_title("losses", fontsize=10)
        first.legend(frameon=False)
        for axis, (name, panel) in zip(others, panels.items()):
            panel(axis)
            axis.set_title(name, fontsize=10)
        figure.suptitle(title, fontsize=11)
        figure.savefig(file, dpi=DOTS_PER_INCH, format="png")


def images(samples: Tensor) -> Panel:
    """Images [N, 3, S, S] in [-1, 1], eight in a row; N is a multiple of 8."""

    def panel(axis: Axes) -> None:
        show(axis, samples.detach().cpu())
        axis.axis("off")

    return panel
