"""The figures of the report, drawn from rows alone."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ganloss_fast.bench.results import Row, by_workload
from ganloss_fast.bench.workload import COMPILE, DROP_IN, EAGER, HELPERS, OURS, REFERENCE

COLOURS = {
    OURS: "#1f6f8b",
    EAGER: "#6e7781",
    COMPILE: "#c0563b",
    REFERENCE: "#b8860b",
    DROP_IN: "#58a6a6",
    HELPERS: "#1f6f8b",
}
matplotlib.rcParams["svg.hashsalt"] = "ganloss"


@dataclass(frozen=True)
class Drawing:
    """A figure as PNG, and what it shows in words."""

    name: str
    caption: str
    png: bytes


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160, bbox_inches="tight")
    return buffer.getvalue()


def _canvas(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.2, height))  # without pyplot, which would keep it
    return figure, figure.subplots()


def _legend_above(axes: Axes) -> None:
    axes.legend(fontsize="small", loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)


def _shortened(names: Sequence[str]) -> list[str]:
    """Without the words that all of them end with: ": discriminator loss"."""
    ends = {name.partition(":")[2] for name in names}
    if len(ends) == 1 and len(names) > 1:
        return [name.partition(":")[0] for name in names]
    return list(names)


def curves(rows: Sequence[Row]) -> list[Drawing]:
    """Each curve: p50 of every contender over its axis, with the band from p20 to p80."""
    drawings = []
    for name in dict.fromkeys(row.curve for row in rows if row.curve and row.measured):
        points = [row for row in rows if row.curve == name and row.measured]
        figure, axes = _canvas(3.6)
        for contender in dict.fromkeys(row.contender for row in points):
            line = sorted(
                (row for row in points if row.contender == contender),
                key=lambda row: row.curve_at or 0,
            )
            at = [row.curve_at or 0 for row in line]
            colour = COLOURS.get(contender)
            middle = [row.p50_us or 0.0 for row in line]
            axes.plot(at, middle, marker="o", markersize=3, label=contender, color=colour)
            low, high = ([getattr(row, p) for row in line] for p in ("p20_us", "p80_us"))
            axes.fill_between(at, low, high, alpha=0.2, color=colour)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(points[0].curve_axis or "")
        axes.set_ylabel("microseconds, p50; band p20 to p80")
        axes.grid(alpha=0.3)
        _legend_above(axes)
        caption = f"Time by {name}: forward and backward, logarithmic on both axes."
        drawings.append(Drawing(f"curve {name}".replace(" ", "-"), caption, _png(figure)))
    return drawings


def bars(rows: Sequence[Row]) -> list[Drawing]:
    """Each section: how many times faster than the code as written, with its 95 % interval."""
    shown = [row for row in rows if row.measured and row.ratio and not row.curve]
    shown = [row for row in shown if row.contender != EAGER]
    drawings = []
    for section in dict.fromkeys(row.section for row in shown):
        groups = by_workload(row for row in shown if row.section == section)
        contenders = list(dict.fromkeys(c for group in groups.values() for c in group))
        figure, axes = _canvas(0.7 + len(groups) * (0.25 + 0.14 * len(contenders)))
        thick = 0.8 / len(contenders)
        for k, contender in enumerate(contenders):
            found = [
                (y, group[contender])
                for y, group in enumerate(groups.values())
                if contender in group
            ]
            at = [y + (k - (len(contenders) - 1) / 2) * thick for y, _ in found]
            ratios = [row.ratio or 0.0 for _, row in found]
            below = [(r.ratio or 0.0) - (r.ratio_low or 0.0) for _, r in found]
            above = [(r.ratio_high or 0.0) - (r.ratio or 0.0) for _, r in found]
            axes.barh(
                at,
                ratios,
                thick * 0.9,
                xerr=[below, above],
                label=contender,
                color=COLOURS.get(contender),
                error_kw={"linewidth": 0.8},
            )
        axes.axvline(1, color="#24292f", linewidth=0.8)
        axes.set_yticks(range(len(groups)), _shortened(list(groups)), fontsize="small")
        axes.invert_yaxis()
        axes.set_xlabel(f"times faster than {EAGER}")
        _legend_above(axes)
        caption = (
            f"{section[0].upper()}{section[1:]}: times faster than the code as written, "
            "with 95 % intervals."
        )
        name = "".join(c if c.isalnum() else "-" for c in section)
        drawings.append(Drawing(f"bars-{name}", caption, _png(figure)))
    return drawings
