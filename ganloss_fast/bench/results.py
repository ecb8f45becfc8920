"""The rows of a run, and their files: JSON lines for programs, CSV for people.

Both are appended to, one row at a time, so that an interrupted run keeps what it measured.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

FORMAT = 2
FAILED = "failed: "
JSON_LINES, CSV = "rows.jsonl", "rows.csv"


class ResultError(Exception):
    """A file or a folder of results that cannot be used; the text is for people."""


@dataclass(frozen=True)
class Row:
    """One contender of one workload. Times are microseconds of one call.

    ``ratio`` says how many times faster it is than the code as written: the median of interleaved
    rounds' own ratios, with its 95 % interval. A contender that failed has no times.
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
    difference: float | None = None  # of value and gradients from ours, relative
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


FIELDS = [field.name for field in dataclasses.fields(Row)]


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
            self._lines: TextIO = (folder / JSON_LINES).open("a")
            self._table: TextIO = (folder / CSV).open("a", newline="")
        except OSError as error:
            raise ResultError(f"--out: cannot write to {folder}: {error.strerror}") from None
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
                self._lines.write(json.dumps(values) + "\n")
                self._writer.writerow(values)
            self._lines.flush()
            self._table.flush()
        except OSError as error:
            raise ResultError(f"--out: cannot write to {self._folder}: {error.strerror}") from None

    def close(self) -> None:
        self._lines.close()
        self._table.close()


def _check_head(path: Path) -> None:
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open(newline="") as file:
        head = next(csv.reader(file), [])
    if head != FIELDS:
        raise ResultError(
            f"--out: {path} holds rows of another version of this command; choose a new folder"
        )


def read_rows(path: Path) -> list[Row]:
    """The rows of a file of JSON lines, or of the folder that holds it.

    Of rows with the same workload and contender the last counts: files are appended to.

    Raises:
        ResultError: if it is no such file, or one of another version.
    """
    file = path / JSON_LINES if path.is_dir() else path
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ResultError(f"{file}: cannot be read: {error}") from None
    found: dict[tuple[str, str, str], Row] = {}
    for number, line in enumerate(lines, 1):
        if number == len(lines) and not line.endswith("}"):
            break  # the run ended while it wrote this one
        row = _row(line, f"{file}, line {number}")
        found[row.workload, row.contender, row.device] = row
    if not found:
        raise ResultError(f"{file}: holds no rows")
    return list(found.values())


def _row(line: str, where: str) -> Row:
    try:
        values: Any = json.loads(line)
    except ValueError:
        values = None
    if not isinstance(values, dict) or "format" not in values:
        raise ResultError(f"{where}: no row of this command; expected {JSON_LINES} of a run")
    if values["format"] != FORMAT:
        raise ResultError(
            f"{where}: written in format {values['format']}, this version reads {FORMAT}; "
            "run it again"
        )
    if set(values) != set(FIELDS):
        strange = ", ".join(sorted(set(values) ^ set(FIELDS)))
        raise ResultError(f"{where}: written by another version (it differs in {strange})")
    return Row(**values)


def by_workload(rows: Iterable[Row]) -> dict[str, dict[str, Row]]:
    """workload -> contender -> row, in the order of the file."""
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(row.workload, {})[row.contender] = row
    return found
