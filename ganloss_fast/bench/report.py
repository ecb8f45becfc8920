"""One page from result files: tables, figures, modelled GPUs, the environment. It needs nothing
beside itself; the figures lie next to it as PNG files too."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import jinja2

from ganloss_fast.bench import figures, places, roofline
from ganloss_fast.bench.results import ResultError, Row, by_workload
from ganloss_fast.bench.tables import (
    DRIFT,
    bytes_text,
    contender_text,
    ratio_text,
    shares_text,
    time_text,
)
from ganloss_fast.bench.workload import DROP_IN, EAGER, HELPERS

PAGE = "report.html"
FACTS = (
    "cpu",
    "gpu",
    "device",
    "threads",
    "clock",
    "copy_GB_per_s",
    "torch",
    "python",
    "ganloss_fast",
    "git_revision",
    "seed",
    "date",
)


def _environments(rows: Sequence[Row]) -> dict[str, dict[str, str]]:
    """Of each machine, by its label."""
    there = places.by_place(rows)
    return {place.long_label: _environment(group) for place, group in there.items()}


def _environment(rows: Sequence[Row]) -> dict[str, str]:
    found = {}
    for fact in FACTS:
        values = list(dict.fromkeys(str(getattr(row, fact)) for row in rows))
        if any(value not in ("", "None") for value in values):
            found[fact.replace("_", " ")] = ", ".join(values)
    return found


def _modelled(rows: Sequence[Row]) -> dict[str, dict[str, roofline.Modelled]]:
    """workload -> GPU -> what it could do."""
    found: dict[str, dict[str, roofline.Modelled]] = {}
    for each in roofline.model(rows):
        found.setdefault(each.workload, {})[each.gpu] = each
    return found


def _is_training(forms: dict[str, Row]) -> bool:
    return any(row.samples_per_s for row in forms.values())


def page(rows: Sequence[Row], drawings: Sequence[figures.Drawing]) -> str:
    """The HTML. Where rows are of several machines, each names its own."""
    count = len(by_workload(rows))
    environments = _environments(rows)
    rows = places.labelled(rows)
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("ganloss_fast.bench"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    templates.filters.update(
        time=time_text,
        bytes=bytes_text,
        ratio=ratio_text,
        shares=shares_text,
        contender=contender_text,
        base64=lambda png: base64.b64encode(png).decode(),
    )
    workloads = by_workload(rows)
    steps = {
        name: group
        for name, group in workloads.items()
        if EAGER in group and (DROP_IN in group or HELPERS in group) and not _is_training(group)
    }
    return templates.get_template("report.html").render(
        rows=rows,
        workloads=workloads,
        steps=steps,
        trainings={name: group for name, group in workloads.items() if _is_training(group)},
        forms=(DROP_IN, HELPERS),
        drift=DRIFT,
        eager=EAGER,
        drawings=drawings,
        gpus=roofline.GPUS,
        modelled=_modelled(rows),
        launch=roofline.LAUNCH_MICROSECONDS,
        launches=roofline.LAUNCHES,
        again=roofline.AGAIN,
        passes=roofline.PASSES,
        environments=environments,
        count=count,
    )


def write(rows: Sequence[Row], folder: Path) -> Path:
    """Writes the page and its figures, and returns the path of the page.

    Raises:
        ResultError: if the folder cannot be written.
    """
    drawings = figures.draw(places.labelled(rows))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for drawing in drawings:
            (folder / f"{drawing.name}.png").write_bytes(drawing.png)
        (folder / PAGE).write_text(page(rows, drawings))
    except OSError as error:
        raise ResultError(f"--out: cannot write to {folder}: {error.strerror}") from None
    return folder / PAGE
