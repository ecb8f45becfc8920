"""The figures of the report, drawn from rows alone."""

from __future__ import annotations

import io
import itertools
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import nan

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter, NullLocator

from ganloss_fast.bench import roofline
from ganloss_fast.bench.results import Row, by_workload
from ganloss_fast.bench.tables import contender_text
from ganloss_fast.bench.workload import COMPILE, DROP_IN, EAGER, HELPERS, OURS, REFERENCE

COLOURS = {
    OURS: "#1f6f8b",
    EAGER: "#6e7781",
    COMPILE: "#c0563b",
    REFERENCE: "#b8860b",
    DROP_IN: "#58a6a6",
    HELPERS: "#1f6f8b",
}
OTHERS = ("#7a5195", "#3f7d20", "#a05195", "#5b6c7d")  # of contenders without a colour of their own
ROOFS = ("#b8860b", "#7a5195", "#58a6a6", "#1f6f8b", "#c0563b")  # of the GPUs
STROKES = ((2.6, "-"), (1.4, "--"), (1.0, ":"), (1.4, "-."))  # lines over each other, all seen
INK = "#24292f"
matplotlib.rcParams["svg.hashsalt"] = "ganloss"
matplotlib.rcParams["text.parse_math"] = False  # a name may hold dollars


@dataclass(frozen=True)
class Drawing:
    """A figure as PNG, and what it shows in words."""

    name: str
    caption: str
    png: bytes


def draw(rows: Sequence[Row]) -> list[Drawing]:
    """Everything that the rows hold: trainings, times and memory along curves, ratios as bars; and
    what GPUs could do at best."""
    shown = [row for row in rows if row.measured]
    drawn = [*trainings(shown), *curves(shown), *memory(shown), *bars(shown)]
    return [*drawn, *modelled(roofline.model(shown))]


# ---- what the figures share --------------------------------------------------------------------


def _drawing(name: str, caption: str, figure: Figure) -> Drawing:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160, bbox_inches="tight")
    file = "".join(c if c.isalnum() else "-" for c in name)
    return Drawing(file, caption, buffer.getvalue())


def _canvas(height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(5.2, height))  # without pyplot, which would keep it
    if columns > 1:
        figure.set_layout_engine("constrained")
    axes = figure.subplots(1, columns, squeeze=False)
    return figure, list(axes[0])


def _legend_above(axes: Axes) -> None:
    axes.legend(fontsize="small", loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)


def _colours(contenders: Sequence[str]) -> dict[str, str]:
    """One for each, the same in every figure where it has one of its own."""
    spare = iter(OTHERS * (1 + len(contenders) // len(OTHERS)))
    return {name: COLOURS.get(name) or next(spare) for name in contenders}


def _contenders(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.contender for row in rows))


def _shortened(names: Sequence[str]) -> list[str]:
    """Without the words that all of them end with, ": discriminator loss", in lines of a width."""
    ends = {name.partition(":")[2] for name in names}
    if len(ends) == 1 and len(names) > 1:
        names = [name.partition(":")[0] for name in names]
    return [textwrap.fill(name, 40) for name in names]


# ---- curves ------------------------------------------------------------------------------------


def _lines(
    rows: Sequence[Row], axes: Axes, middle: Callable[[Row], float], with_band: bool
) -> None:
    """One line for each contender over the axis of the curve; where points are missing, none."""
    contenders = _contenders(rows)
    colours = _colours(contenders)
    for contender in contenders:
        line = sorted((row for row in rows if row.contender == contender), key=_at)
        at = [_at(row) for row in line]
        values = list(map(middle, line))
        colour = colours[contender]
        axes.plot(at, values, marker="o", markersize=3, label=contender, color=colour)
        if with_band:
            low, high = (
                [1e-6 * (getattr(r, p) or nan) for r in line] for p in ("p20_us", "p80_us")
            )
            axes.fill_between(at, low, high, alpha=0.2, color=colour)
    _logarithmic(axes)
    axes.set_xlabel(rows[0].curve_axis or "")
    axes.grid(alpha=0.3)


def _logarithmic(axes: Axes, unit: str = "") -> None:
    """On both axes, numbers as people write them: 10 k. Matplotlib's own would be formulas."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(EngFormatter(unit))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _at(row: Row) -> int:
    return row.curve_at or 0


def _mark(axes: Axes, rows: Sequence[Row], unit: str) -> None:
    """Times and bytes as people write them, 200 ms; each point by its number where they are few."""
    low, high = axes.get_ylim()
    steps = (1, 2, 5) if high < 1000 * low else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=steps, numticks=30))
    axes.yaxis.set_major_formatter(EngFormatter(unit))
    axes.yaxis.set_minor_locator(NullLocator())
    points = sorted({_at(row) for row in rows})
    if len(points) <= 7 and points[-1] < 10_000:
        axes.set_xticks(points, list(map(str, points)))
        axes.set_xticks([], minor=True)


def _named_curves(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Those of two points at least: of one there is nothing to draw."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row.curve:
            found.setdefault(row.curve, []).append(row)
    return {name: points for name, points in found.items() if len(set(map(_at, points))) > 1}


def curves(rows: Sequence[Row]) -> list[Drawing]:
    """p50 of every contender, with the band from p20 to p80; dashed, what a copy of the least bytes
    would take on as many threads, where these do not fit into the last-level cache."""
    drawings = []
    for name, points in _named_curves(rows).items():
        figure, (axes,) = _canvas(3.6)
        _lines(points, axes, lambda row: 1e-6 * (row.p50_us or 0.0), with_band=True)
        floor = sorted({(_at(row), least) for row in points if (least := _least_seconds(row))})
        if floor:
            axes.plot(*zip(*floor), "--", linewidth=1, color=INK, label="a copy of the least bytes")
        _mark(axes, points, "s")
        axes.set_ylabel("p50; band p20 to p80")
        _legend_above(axes)
        caption = f"Time by {name}: {points[0].direction}, logarithmic on both axes."
        drawings.append(_drawing(f"curve {name}", caption, figure))
    return drawings


def _least_seconds(row: Row) -> float | None:
    """A copy of the least bytes, where a copy is what they can be compared with."""
    if row.bytes is None or not row.copy_GB_per_s or row.of_copy_bandwidth is None:
        return None
    return row.bytes / row.copy_GB_per_s / 1e9


def memory(rows: Sequence[Row]) -> list[Drawing]:
    """Peak memory of every contender along the curves of whole penalties."""
    drawings = []
    for name, points in _named_curves(rows).items():
        points = [row for row in points if row.peak_bytes and row.bytes is None]
        if not points:
            continue
        figure, (axes,) = _canvas(3.6)
        _lines(points, axes, lambda row: row.peak_bytes or 0, with_band=False)
        _mark(axes, points, "B")
        axes.set_ylabel("peak memory")
        _legend_above(axes)
        caption = f"Peak memory by {name}, above what was held before, logarithmic on both axes."
        drawings.append(_drawing(f"memory {name}", caption, figure))
    return drawings


# ---- bars --------------------------------------------------------------------------------------


def bars(rows: Sequence[Row]) -> list[Drawing]:
    """Each section: how many times faster than the code as written, with its 95 % interval; without
    one where rounds were too few."""
    shown = [row for row in rows if row.ratio and not row.curve and row.contender != EAGER]
    drawings = []
    for section in dict.fromkeys(row.section for row in shown):
        found = [row for row in shown if row.section == section]
        figure = _bars_of(found)
        title = f"{section[0].upper()}{section[1:]}"
        caption = f"{title}: times faster than the code as written, with 95 % intervals."
        drawings.append(_drawing(f"bars {section}", caption, figure))
    return drawings


def places(groups: Sequence[Sequence[str]]) -> list[list[float]]:
    """Where the bars of each group stand: one unit apart, the next group after a gap; a contender
    that a group lacks takes no room in it."""
    found, top = [], 0.0
    for group in groups:
        found.append([top + k for k in range(len(group))])
        top += len(group) + 0.7
    return found


def _beside(row: Row) -> tuple[float, float]:
    """From its ratio to either end of the interval."""
    if row.only_range or not row.ratio or not row.ratio_low or not row.ratio_high:
        return 0.0, 0.0
    return max(0.0, row.ratio - row.ratio_low), max(0.0, row.ratio_high - row.ratio)


def _bars_of(rows: Sequence[Row]) -> Figure:
    groups = by_workload(rows)
    contenders = _contenders(rows)
    colours = _colours(contenders)
    stands = places([list(group) for group in groups.values()])
    figure, (axes,) = _canvas(0.9 + 0.15 * (len(rows) + 0.7 * len(groups)))
    for contender in contenders:
        pairs = [
            (place, row)
            for at, group in zip(stands, groups.values())
            for place, row in zip(at, group.values())
            if row.contender == contender
        ]
        ratios = [row.ratio or 0.0 for _, row in pairs]
        below, above = zip(*(_beside(row) for _, row in pairs))
        axes.barh(
            [place for place, _ in pairs],
            ratios,
            0.85,
            xerr=[below, above],
            label=contender_text(contender),
            color=colours[contender],
            error_kw={"linewidth": 0.8},
        )
    axes.axvline(1, color=INK, linewidth=0.8)
    middles = [sum(at) / len(at) for at in stands]
    axes.set_yticks(middles, _shortened(list(groups)), fontsize="small")
    axes.invert_yaxis()
    axes.margins(y=0.02)
    axes.set_xlabel(f"times faster than {EAGER}")
    _legend_above(axes)
    return figure


# ---- modelled GPUs -----------------------------------------------------------------------------


def modelled(found: Sequence[roofline.Modelled]) -> list[Drawing]:
    """The roof of every GPU: the least time of ours over the bytes that must move, first that of
    its launches, then that of the memory; crosses for workloads as written."""
    if not found:
        return []
    figure, (axes,) = _canvas(4.2)
    for gpu, colour in zip(roofline.GPUS, ROOFS):
        points = sorted((each.bytes, each.written_us) for each in found if each.gpu == gpu.name)
        sizes = sorted({at for at, _ in points} | {roofline.launch_bound_bytes(gpu)})
        floor = [roofline.ours_us(gpu, at) for at in sizes]
        axes.plot(sizes, [1e-6 * us for us in floor], color=colour, label=gpu.name)
        written = [1e-6 * us for _, us in points]
        axes.plot([at for at, _ in points], written, "x", markersize=4, color=colour)
    _logarithmic(axes, "B")
    axes.yaxis.set_major_formatter(EngFormatter("s"))
    axes.set_xlabel("bytes that must move")
    axes.set_ylabel("modelled time of a call, at best")
    axes.grid(alpha=0.3)
    axes.set_title("Modelled, not measured", loc="left", fontsize="medium", pad=52)
    _legend_above(axes)
    caption = (
        "Modelled, not measured: the least time on named GPUs. Lines for ours; crosses for the "
        "code as written, of which every operator is a launch. Logarithmic on both axes."
    )
    return [_drawing("modelled GPUs", caption, figure)]


# ---- trainings ---------------------------------------------------------------------------------


def trainings(rows: Sequence[Row]) -> list[Drawing]:
    """Each training: both losses of every form, on the samples held out."""
    drawings = []
    for name, forms in by_workload(row for row in rows if row.losses).items():
        figure, panels = _canvas(2.8, columns=2)
        colours = _colours(list(forms))
        for k, (axes, side) in enumerate(zip(panels, ("discriminator", "generator")), 1):
            strokes = itertools.chain(STROKES, itertools.repeat(STROKES[-1]))
            for (width, style), row in zip(strokes, forms.values()):
                steps = [point[0] for point in row.losses or ()]
                values = [point[k] for point in row.losses or ()]
                colour = colours[row.contender] if style != ":" else INK
                axes.plot(steps, values, style, linewidth=width, color=colour, label=row.contender)
            axes.set_title(f"{side}'s loss", fontsize="small")
            axes.set_xlabel("step", fontsize="small")
            axes.tick_params(labelsize="small")
            axes.grid(alpha=0.3)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(
            handles,
            labels,
            loc="outside upper left",
            ncols=min(3, len(forms)),
            fontsize="small",
            frameon=False,
        )
        caption = f"{name[0].upper()}{name[1:]}: losses on samples held out, as it is written."
        drawings.append(_drawing(f"training {name}", caption, figure))
    return drawings
