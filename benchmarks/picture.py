"""Draws docs/speed.svg, and writes the tables of numbers, from the records in results/ alone.

    python -m benchmarks.picture    # make picture

A test does it again and compares, so that no page can say something else than the records.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

from benchmarks import tables
from benchmarks.tables import Comparisons, comparisons, conditions
from ganloss_fast.bench.workload import COMPILE, EAGER

PICTURE = tables.REPOSITORY / "docs" / "speed.svg"

# What is said about a workload of the record: a group, then its rows.
GROUPS: dict[str, dict[str, str]] = {
    "Losses, forward and backward": {
        "hinge, 64 logits": "hinge loss, 64 logits",
        "bce, 16x1x62x62": "BCE, patches of 16 images",
        "least_squares, 1e6 logits": "least squares, 1,000,000 logits",
        "8 outputs, B=16": "HiFi-GAN's 8 outputs",
        "feature matching, 54 maps, B=1": "feature matching, HiFi-GAN's 54 maps",
        "generator step, frozen, B=1": "generator step, HiFi-GAN's critics frozen",
    },
    "Gradient penalty alone": {
        "DCGAN: penalty, fast": "DCGAN",
        "ResNet, spectral norm: penalty, fast": "ResNet, spectral norm",
        "HiFi-GAN period: penalty, fast": "HiFi-GAN period critic",
        "StyleGAN2: penalty, fast": "StyleGAN2",
        "PatchGAN, InstanceNorm: penalty, fast": "PatchGAN, InstanceNorm",
    },
    "Whole WGAN-GP critic step": {
        "DCGAN: step, fast": "DCGAN",
        "HiFi-GAN period: step, fast": "HiFi-GAN period critic",
        "PatchGAN, InstanceNorm: step, fast": "PatchGAN, InstanceNorm",
    },
}


# ---- the picture -------------------------------------------------------------------------------

LEFT, WIDTH, STEP, ROW = 310, 330, 55, 24  # STEP pixels for twice as fast
COLUMNS = {EAGER: LEFT + WIDTH + 75, COMPILE: LEFT + WIDTH + 165}
TICKS = (1, 2, 4, 8, 16, 32)
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.head { font-weight: 600 } .small { font-size: 11.5px; fill: #57606a } .number { text-anchor: end }
line { stroke: #d0d7de } .one { stroke: #57606a }
.eager { fill: #1f6f8b } .compile { fill: none; stroke: #c0563b; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .small { fill: #9198a1 } line { stroke: #3d444d } .one { stroke: #9198a1 }
  .eager { fill: #58b5d6 } .compile { stroke: #f0916f }
}
"""


def _x(ratio: float) -> float:
    """Where a speed-up stands: equal steps for equal factors."""
    return LEFT + STEP * math.log2(ratio)


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}">{escape(text)}</text>'


def _line(x: float, top: float, bottom: float, kind: str) -> str:
    return f'<line x1="{x:g}" x2="{x:g}" y1="{top:g}" y2="{bottom:g}" class="{kind}"/>'


def _row(y: float, label: str, found: Comparisons) -> list[str]:
    drawn = [_text(26, y + 4, label)]
    for baseline, column in COLUMNS.items():
        if baseline in found:
            ratio = found[baseline]["ratio"]
            kind = "eager" if baseline == EAGER else "compile"
            radius = 5 if baseline == EAGER else 4
            drawn.append(f'<circle cx="{_x(ratio):.1f}" cy="{y:g}" r="{radius}" class="{kind}"/>')
            drawn.append(_text(column, y + 4, f"{ratio:.2f}x", "number"))
    return drawn


def picture(record: Mapping[str, Any]) -> str:
    """The SVG: a row for each workload, a mark for each baseline, on a logarithmic axis."""
    body: list[str] = []
    y = top = 72
    for group, rows in GROUPS.items():
        y += ROW
        body.append(_text(12, y + 4, group, "head"))
        for workload, label in rows.items():
            y += ROW
            body += _row(y, label, comparisons(record, workload))
    bottom = y + ROW - 6
    axis = []
    for tick in TICKS:
        axis.append(_line(_x(tick), top, bottom, "one" if tick == 1 else ""))
        axis.append(_text(_x(tick) - 7, bottom + 17, f"{tick}x", "small"))
    head = [
        _text(12, 22, "Times faster than what it replaces", "head"),
        _text(12, 41, f"Medians of interleaved rounds: {conditions(record)}.", "small"),
        _text(12, 58, 'Penalties with graph_cut="fast", on unmodified critics.', "small"),
        _text(COLUMNS[EAGER], top + 4, "eager", "number"),
        f'<circle cx="{COLUMNS[EAGER] - 50}" cy="{top}" r="5" class="eager"/>',
        _text(COLUMNS[COMPILE], top + 4, "compile", "number"),
        f'<circle cx="{COLUMNS[COMPILE] - 63}" cy="{top}" r="4" class="compile"/>',
    ]
    size = f'width="{COLUMNS[COMPILE] + 16}" height="{bottom + 30}"'
    view = f'viewBox="0 0 {COLUMNS[COMPILE] + 16} {bottom + 30}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {view} role="img">',
        "<title>Speed of ganloss_fast against eager PyTorch and torch.compile</title>",
        f"<style>{STYLE}</style>",
        *head,
        *axis,
        *body,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    PICTURE.write_text(picture(tables.read_records()["cpu"]))
    for path in tables.PAGES:
        path.write_text(tables.with_tables(path.read_text(), tables.read_records()))


if __name__ == "__main__":
    main()
