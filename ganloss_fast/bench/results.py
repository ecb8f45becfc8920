"""The rows of a run, and their files: JSON lines for programs, CSV for people.

Both are appended to, one row at a time, so that an interrupted run keeps what it measured. What a
killed run left unfinished costs its own line: the next run ends that line, and readers pass it by.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, TextIO, get_args, get_origin, get_type_hints

FORMAT = 2
FAILED = "failed: "
JSON_LINES, CSV = "rows.jsonl", "rows.csv"


class ResultError(Exception):
    """A file or a folder of results that cannot be used; the text is for people."""


@dataclass(frozen=True)
class Row:
    """One contender of one workload. Times are microseconds of one call.

    ``ratio`` says how many times faster it is than the code as written: the median of interleaved
    rounds' own ratios. ``ratio_low`` and ``ratio_high`` are its 95 % interval, or the range of the
    rounds where these are too few for one; then there is no p20 and no p80 either. A contender that
    failed has no times. What is not finite is None.
    """

    workload: str
    section: str
    contender: str
    backend: str
    direction: str
    shapes: str
    dtype: str
    status: str  # "measured", or why not
    p20_us: float | None = None
    p50_us: float | None = None
    p80_us: float | None = None
    bytes: int | None = None
    GB_per_s: float | None = None
    of_copy_bandwidth: float | None = None
    operators: int | None = None  # launches on a GPU
    peak_bytes: int | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    difference: float | None = None  # of value and gradients from the code as written, relative
    rounds: int | None = None
    curve: str | None = None
    curve_axis: str | None = None
    curve_at: int | None = None
    # of a training on real data, whose times are of one step
    steps: int | None = None
    samples: int | None = None  # of one step
    unit: str | None = None  # images, or clips
    samples_per_s: float | None = None
    seconds_per_1000: float | None = None  # samples
    loss_share: float | None = None  # of loss and penalty, in the step as written
    discarded_share: float | None = None  # of what the step as written throws away or does twice
    losses: list[list[float]] | None = None  # [step, discriminator's, generator's], held-out data
    drift: float | None = None  # of those curves from the ones as written
    drift_of_rounding: float | None = None  # of two trainings as written, one rounding apart
    seed: int = 0
    device: str = "cpu"
    clock: str = ""
    threads: int = 1
    cpu: str = ""
    gpu: str = ""
    copy_GB_per_s: float | None = None
    torch: str = ""
    python: str = ""
    ganloss_fast: str = ""
    git_revision: str = ""
    date: str = ""
    format: int = FORMAT

    @property
    def measured(self) -> bool:
        return self.status == "measured"

    @property
    def failed(self) -> bool:
        """Tried in vain; what there was no time or no memory to try has not failed."""
        return self.status.startswith(FAILED)

    @property
    def only_range(self) -> bool:
        """Whether the bounds of its ratio are the range of too few rounds."""
        return self.p50_us is not None and self.p20_us is None

    @property
    def ratio_text(self) -> str:
        """3.10x (2.95-3.21), or 3.10x (range 2.95-3.21): of a row that has a ratio."""
        what = "range " if self.only_range else ""
        return f"{self.ratio:.2f}x ({what}{self.ratio_low:.2f}-{self.ratio_high:.2f})"


FIELDS = [field.name for field in dataclasses.fields(Row)]
KINDS = get_type_hints(Row)
LARGEST = 1e300  # of a number; JSON may hold any
TOGETHER = (  # all of them are there, or none
    ("p20_us", "p80_us"),
    ("ratio", "ratio_low", "ratio_high"),
    ("curve", "curve_axis", "curve_at"),
    ("samples_per_s", "seconds_per_1000", "losses", "drift", "drift_of_rounding"),
    ("loss_share", "discarded_share"),
)
NAMED = ("workload", "section", "contender")
ABOVE_0 = (
    *("p20_us", "p50_us", "p80_us", "ratio", "ratio_low", "ratio_high"),
    *("samples_per_s", "curve_at"),
)


class ResultFiles:
    """Both files of a folder, open at their ends."""

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            ResultError: if the folder cannot be written, or holds rows of another version.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _check_head(folder / CSV)
            _check_format(folder / JSON_LINES)
            for name in (CSV, JSON_LINES):
                _end_last_line(folder / name)
            self._lines: TextIO = (folder / JSON_LINES).open("a", encoding="utf-8")
            self._table: TextIO = (folder / CSV).open("a", newline="", encoding="utf-8")
        except OSError as error:
            raise _unwritable(folder, error) from None
        self._folder = folder
        self._writer = csv.DictWriter(self._table, fieldnames=FIELDS)
        if self._table.tell() == 0:
            self._writer.writeheader()

    def write(self, rows: Iterable[Row]) -> None:
        """On disk when it returns.

        Raises:
            ResultError: if the disk is full.
        """
        try:
            for values in map(dataclasses.asdict, rows):
                values = {name: _finite(value) for name, value in values.items()}
                self._lines.write(json.dumps(values, allow_nan=False) + "\n")
                self._writer.writerow(values)
            self._lines.flush()
            self._table.flush()
        except OSError as error:
            raise _unwritable(self._folder, error) from None

    def close(self) -> None:
        for file in (self._lines, self._table):
            with contextlib.suppress(OSError):  # of a full disk, which write() spoke of
                file.close()


def _unwritable(folder: Path, error: OSError) -> ResultError:
    return ResultError(f"--out: cannot write to {folder}: {error.strerror}")


def _finite(value: Any) -> Any:
    """JSON knows neither NaN nor infinity."""
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _of_another_version(path: Path) -> ResultError:
    return ResultError(
        f"--out: {path} holds rows of another version of this command; choose a new folder"
    )


def _check_head(path: Path) -> None:
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        try:
            head = next(csv.reader(file), [])
        except csv.Error:
            head = []
    if head != FIELDS:
        raise _of_another_version(path)


def _check_format(path: Path) -> None:
    """By the first line that can be read; where none can, by how the file begins."""
    if not path.exists() or path.stat().st_size == 0:
        return
    begin = '{"' + FIELDS[0]
    with path.open(encoding="utf-8", errors="replace") as file:
        begun = file.read(len(begin)) == begin[: path.stat().st_size]
        file.seek(0)
        for line in file:
            values = _values(line)
            if values is not None:
                if values["format"] != FORMAT or set(values) != set(FIELDS):
                    raise _of_another_version(path)
                return
    if not begun:
        raise ResultError(f"--out: {path} holds something else than rows; choose a new folder")


def _end_last_line(path: Path) -> None:
    """Of a run that was killed while it wrote; else the next row would become part of it."""
    if not path.exists() or path.stat().st_size == 0:
        return
    last = path.read_bytes().rpartition(b"\n")[2]
    if last:
        with path.open("ab") as file:  # in a CSV it may have ended inside of quotes
            quote = b'"' if path.name == CSV and last.count(b'"') % 2 else b""
            file.write(quote + b"\n")


# ---- reading -----------------------------------------------------------------------------------


class BrokenLine(Exception):
    """A line that is no row: cut off, glued to another, or changed by hand."""


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def read_rows(path: Path, warn: Callable[[str], object] = _to_stderr) -> list[Row]:
    """The rows of a file of JSON lines, or of the folder that holds it.

    Of rows with the same workload and contender, taken on the same machine, the last counts: files
    are appended to. Broken lines are left out, and ``warn`` is told of each.

    Raises:
        ResultError: if it is no such file, or one of another version.
    """
    file = path / JSON_LINES if path.is_dir() else path
    try:
        lines = file.read_bytes().splitlines()  # each is decoded by itself
    except OSError as error:
        raise ResultError(f"{file}: cannot be read: {error}") from None
    found: list[Row] = []
    broken: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            found.append(_row(line, where))
        except BrokenLine as error:
            broken.append(f"{where}: left out: {error}")
    if not found:
        why = f" ({broken[0]})" if broken else ""
        raise ResultError(f"{file}: holds no rows; expected {JSON_LINES} of a run{why}")
    for each in broken:
        warn(each)
    return latest(found)


def latest(rows: Iterable[Row]) -> list[Row]:
    """Of rows with the same workload and contender, taken on the same machine, the last."""
    return list(
        {(r.workload, r.contender, r.device, r.gpu, r.cpu, r.threads): r for r in rows}.values()
    )


def _values(line: str | bytes) -> dict[str, Any] | None:
    """None where the line is none of this command's, of any version."""
    try:
        values: Any = json.loads(line, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) and "format" in values else None


def _row(line: bytes, where: str) -> Row:
    values = _values(line)
    if values is None:
        raise BrokenLine("it is no row, or only a part of one")
    if values["format"] != FORMAT:
        raise ResultError(
            f"{where}: written in format {values['format']!r}, this version reads {FORMAT}; "
            "run it again"
        )
    if set(values) != set(FIELDS):
        strange = ", ".join(sorted(set(values) ^ set(FIELDS)))
        raise ResultError(f"{where}: written by another version (it differs in {strange})")
    for complaint in _complaints(values):
        raise BrokenLine(complaint)
    return Row(**values)


def _complaints(values: dict[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if not _is_a(KINDS[name], value):
            yield f"{name} is {value!r}"[:100]
            return
    for name in NAMED:
        if not values[name]:
            yield f"it has no {name}"
    for name in ABOVE_0:
        if values[name] is not None and values[name] <= 0:
            yield f"{name} is {values[name]}, no number above 0"
    for group in TOGETHER:
        missing = [name for name in group if values[name] is None]
        if missing and len(missing) < len(group):
            there = [name for name in group if name not in missing]
            yield f"{', '.join(missing)} missing beside {', '.join(there)}"
    if values["status"] == "measured" and values["p50_us"] is None:
        yield "it is measured, and has no p50_us"
    if any(len(point) != 3 for point in values["losses"] or ()):
        yield "losses are no points of a step and two losses"


def _is_a(kind: Any, value: Any) -> bool:
    """float: finite, or an int; list[float]; float | None."""
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_is_a(get_args(kind)[0], each) for each in value)
    if kinds := get_args(kind):
        return any(_is_a(each, value) for each in kinds)
    if kind is float:
        return type(value) in (int, float) and abs(value) < LARGEST
    return type(value) is kind or (kind is NoneType and value is None)


def by_workload(rows: Iterable[Row]) -> dict[str, dict[str, Row]]:
    """workload -> contender -> row, in the order of the file."""
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(row.workload, {})[row.contender] = row
    return found
