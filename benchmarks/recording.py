"""Where results go: one CSV line per step as it happens, one JSON file at the end."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.training import StepRecord


class StepLog:
    """Writes the steps of all runs to ``steps.csv``, and to TensorBoard if asked to.

    Every line is flushed, so that an interrupted run keeps what it did.
    """

    def __init__(self, folder: Path, run_names: Iterable[str], tensorboard: bool) -> None:
        self._file = (folder / "steps.csv").open("w", newline="")
        self._csv = csv.writer(self._file)
        self._csv.writerow(["step", "run", *(field.name for field in fields(StepRecord))])
        self._boards = {}
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            for name in run_names:
                board_folder = folder / "tensorboard" / name.replace(" ", "_")
                self._boards[name] = SummaryWriter(str(board_folder))

    def write(self, step: int, run: str, record: StepRecord) -> None:
        values = asdict(record)
        self._csv.writerow([step, run, *(f"{value:.9g}" for value in values.values())])
        self._file.flush()
        if run in self._boards:
            for name, value in values.items():
                self._boards[run].add_scalar(name, value, step)

    def __enter__(self) -> StepLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        for board in self._boards.values():
            board.close()


class CsvFile:
    """Rows that share their keys, the first line naming them; each is on disk when it is written,
    so that an interrupted run keeps what it did."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", newline="")
        self._writer: csv.DictWriter | None = None

    def write(self, row: Mapping[str, Any]) -> None:
        if self._writer is None:
            self._writer = csv.DictWriter(self._file, fieldnames=list(row))
            self._writer.writeheader()
        self._writer.writerow(row)
        self._file.flush()

    def __enter__(self) -> CsvFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Rows that share their keys, the first line naming them."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
