"""What is shown on a terminal. Names and errors are anybody's: styles are Text, never markup."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from rich.table import Table
from rich.text import Text

from ganloss_fast.bench.results import Row, by_workload
from ganloss_fast.bench.workload import BUILT_IN, EAGER, Workload


def time_text(microseconds: float | None) -> str:
    if microseconds is None:
        return ""
    if microseconds < 1e3:
        return f"{microseconds:.1f} us"
    if microseconds < 1e6:
        return f"{microseconds / 1e3:.2f} ms"
    return f"{microseconds / 1e6:.2f} s"


def minutes_text(seconds: float) -> str:
    """less than a minute; 12 min."""
    minutes = math.ceil(seconds / 60)
    return "less than a minute" if minutes <= 1 else f"{minutes} min"


def bytes_text(count: float | None) -> str:
    """Three digits: 1.63 kB, 25 MB."""
    if count is None:
        return ""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def ratio_text(row: Row) -> str:
    """Nothing for the code as written, whose ratio is 1."""
    if row.ratio is None or row.contender == EAGER:
        return ""
    return row.ratio_text


def contender_text(contender: str) -> str:
    return f"{contender} (computes something else)" if contender == BUILT_IN else contender


def listing(workloads: Sequence[Workload]) -> Table:
    table = Table(title=f"{len(workloads)} workloads", title_justify="left")
    for column in ("workload", "shapes", "dtype", "bound by", "from", "quick"):
        table.add_column(column, overflow="fold")
    section = None
    for each in workloads:
        if each.section != section:
            section = each.section
            table.add_section()
            table.add_row(Text(section, "dim"))
        quick = "yes" if each.quick else ""
        least = bytes_text(each.bytes) or "arithmetic"  # of networks, which no bytes bound
        table.add_row(each.name, each.shapes, each.dtype, least, each.source, quick)
    return table


def _of_contenders(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if "," in column else "right", overflow="fold")
    return table


def _add_contenders(
    table: Table, name: str, rows: Iterable[Row], cells: Callable[[Row], Iterable[str]]
) -> None:
    """A section: its name, and each contender's cells or why it has none."""
    table.add_section()
    table.add_row(Text(name, "bold"))
    for row in rows:
        if row.measured:
            table.add_row(f"  {contender_text(row.contender)}", *cells(row))
        else:
            table.add_row(Text.assemble(f"  {row.contender}: ", (row.status, "red")))


def measured_table(rows: Sequence[Row]) -> Table:
    table = _of_contenders(
        f"Times faster than {EAGER} (95 % interval), medians of interleaved rounds",
        ("workload, contender", "p20", "p50", "p80", "GB/s", "ops", "peak", "faster"),
    )
    for workload, contenders in by_workload(rows).items():
        _add_contenders(table, workload, contenders.values(), _cells)
    return table


DRIFT = (
    "drift: of the loss curves from those as written, in parts of how far these move; in brackets "
    "that of the same code started one rounding apart"
)


def trained_table(rows: Sequence[Row]) -> Table:
    """The rows of trainings."""
    table = _of_contenders(
        f"Trainings on real data: times faster than {EAGER} (95 % interval)",
        ("training, form", "a second", "a step", "s per 1000", "peak", "faster", "drift"),
    )
    for name, forms in by_workload(rows).items():
        _add_contenders(table, name, forms.values(), _trained_cells)
        table.add_row(Text(shares_text(next(iter(forms.values()))), "dim"))
    table.caption = DRIFT
    table.caption_justify = "left"
    return table


def shares_text(row: Row) -> str:
    """What a gain can come from at most, by Amdahl's law."""
    if row.loss_share is None or row.discarded_share is None:
        return ""
    loss, discarded = row.loss_share, row.discarded_share
    return (
        f"Of the step as written, loss and penalty are {loss:.1%} of the time (if they took none: "
        f"{_without(loss)}), and {discarded:.1%} is thrown away or done twice "
        f"({_without(discarded)})."
    )


def _without(share: float) -> str:
    """How many times faster, if this share took no time."""
    return f"{1 / (1 - share):.2f}x" if share < 1 else "no bound"


def _trained_cells(row: Row) -> tuple[str, ...]:
    drift = "" if row.drift is None else f"{row.drift:.1%} ({row.drift_of_rounding:.1%})"
    return (
        f"{row.samples_per_s:.1f} {row.unit}",
        time_text(row.p50_us),
        f"{row.seconds_per_1000:.1f}",
        bytes_text(row.peak_bytes),
        ratio_text(row),
        drift,
    )


def _cells(row: Row) -> tuple[str, ...]:
    return (
        time_text(row.p20_us),
        time_text(row.p50_us),
        time_text(row.p80_us),
        "" if row.GB_per_s is None else f"{row.GB_per_s:.1f}",
        str(row.operators),
        bytes_text(row.peak_bytes),
        ratio_text(row),
    )
