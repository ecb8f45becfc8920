"""Timing on a machine that is never quite still: contenders take turns, medians are compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median, quantiles

import torch

Work = Callable[[], object]

ROUNDS = 41
LEAST_ROUNDS = 5
BLOCK_SECONDS = 0.004  # one turn of one contender: long against the clock, short against drift
WARM_UP_CALLS = 3


@dataclass(frozen=True)
class Timing:
    """Seconds of one call, one value a round, rounds alike in all contenders."""

    rounds: list[float]

    @property
    def seconds(self) -> float:
        return median(self.rounds)

    def ratio_to(self, other: Timing) -> float:
        """How many times longer this takes: median of the rounds' own ratios."""
        return median(a / b for a, b in zip(self.rounds, other.rounds))

    def ratio_spread(self, other: Timing) -> tuple[float, float]:
        """Quartiles of the rounds' ratios."""
        low, _, high = quantiles((a / b for a, b in zip(self.rounds, other.rounds)), n=4)
        return low, high


def raise_trim_threshold() -> None:
    """Frees one block of 30 MB, after which glibc keeps freed memory instead of returning it.

    Any training loop does this by itself. Without it a fresh process gives every large
    gradient back to the system and faults it in again on each call, which no loss can help.
    """
    torch.empty(30 * 2**20, dtype=torch.uint8).fill_(0)


def _counts_processor_time(device: torch.device) -> bool:
    """Whether all the work is one thread's, whose processor time leaves other programs out.

    Where threads wait for each other or for a GPU, only the wall clock sees the waiting.
    """
    return device.type == "cpu" and torch.get_num_threads() == 1


def clock_name(device: torch.device) -> str:
    """For the record."""
    return "processor time" if _counts_processor_time(device) else "wall time"


def _seconds_per_call(work: Work, calls: int, device: torch.device) -> float:
    clock = time.process_time if _counts_processor_time(device) else time.perf_counter
    started = clock()
    for _ in range(calls):
        work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (clock() - started) / calls


def interleave(
    contenders: Mapping[str, Work], device: torch.device, rounds: int, most_seconds: float
) -> dict[str, Timing]:
    """Times the contenders in turns; each round starts with another one.

    Args:
        contenders: what to call, by name.
        device: where they compute.
        rounds: turns of each contender, fewer (but five) if they would take ``most_seconds``.
        most_seconds: rough limit for the whole.
    """
    raise_trim_threshold()
    calls = {}
    expected = 0.0
    for name, work in contenders.items():
        once = min(_seconds_per_call(work, 1, device) for _ in range(WARM_UP_CALLS))
        calls[name] = max(1, round(BLOCK_SECONDS / once))
        expected += calls[name] * once
    rounds = max(LEAST_ROUNDS, min(rounds, int(most_seconds / expected)))

    taken: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            taken[name].append(_seconds_per_call(contenders[name], calls[name], device))
    return {name: Timing(seconds) for name, seconds in taken.items()}
