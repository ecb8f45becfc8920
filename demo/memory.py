"""Peak memory of each run, measured in a process of its own: two runs in one share a heap."""

from __future__ import annotations

import multiprocessing
import signal
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import torch

from demo.objectives import OBJECTIVES
from demo.training import Settings, Trainer

STEPS = 3  # the second step is the first with all optimiser state


def process_peak() -> int:
    """The most memory this process has held so far, in bytes; 0 where the system does not say.

    VmHWM, not getrusage: in the latter a spawned process inherits the maximum of its parent.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _measure(index: int, settings: Settings, threads: int, queue: SimpleQueue) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    torch.set_num_threads(threads)
    crops = torch.zeros(settings.batch, 3, settings.size, settings.size)
    trainer = Trainer(OBJECTIVES[index](settings.loss), settings, crops)
    before = process_peak()
    for _ in range(STEPS):
        trainer.step()
    queue.put(process_peak() - before)


def measure_peaks(settings: Settings) -> list[int]:
    """Bytes that the steps of each run need beyond imports and networks; 0 is unknown."""
    context = multiprocessing.get_context("spawn")
    peaks = []
    for index in range(len(OBJECTIVES)):
        queue = context.SimpleQueue()
        arguments = (index, settings, torch.get_num_threads(), queue)
        process = context.Process(target=_measure, args=arguments, daemon=True)
        try:
            process.start()
            process.join()
        except KeyboardInterrupt:
            process.terminate()
            return [0] * len(OBJECTIVES)
        peaks.append(queue.get() if process.exitcode == 0 else 0)
    return peaks
