"""The steps of both runs: one CSV line for each as it happens, and TensorBoard if asked for."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from types import TracebackType

from demo.training import StepRecord


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
