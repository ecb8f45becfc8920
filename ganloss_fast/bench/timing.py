"""Timing on a machine that is never quite still: contenders take turns, medians are compared.

One engine with two clocks: the host's, and a pair of events on a GPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Protocol

import torch

Work = Callable[[], object]

ROUNDS = 41
LEAST_ROUNDS = 6  # fewer have no 95 % interval
CONFIDENCE = 0.95
WARM_UP_CALLS = 3
FLUSHED_BYTES = 256 << 20  # more than any L2 cache holds
ERRORS = (Exception, SystemExit)  # that a contender may raise, and that cost no other its row


# ---- clocks ------------------------------------------------------------------------------------


class Clock(Protocol):
    """Takes the time of some calls in a row."""

    name: str  # for the record
    turn_seconds: float  # how long one turn of a contender should be; 0 is a single call

    def seconds_per_call(self, work: Work, calls: int) -> float: ...


class HostClock:
    """For work on the CPU.

    Where all of it is one thread's, its processor time, which leaves other programs out. Where
    threads wait for each other only the wall clock sees the waiting.
    """

    turn_seconds = 0.004  # long against the clock, short against the machine's drift

    def __init__(self, wall: bool = False) -> None:
        alone = torch.get_num_threads() == 1 and not wall
        self.name = "processor time" if alone else "wall time"
        self._now = time.process_time if alone else time.perf_counter

    def seconds_per_call(self, work: Work, calls: int) -> float:
        started = self._now()
        for _ in range(calls):
            work()
        return (self._now() - started) / calls


class EventClock:
    """For work on a GPU: between two events on its stream, with an empty L2 cache.

    The fill that empties the cache is long enough for the host to queue the work behind it, so
    that what is measured is the device and not the way to it; where the host is slower than that,
    its time shows, as it does in training.
    """

    name = "CUDA events"
    turn_seconds = 0.0  # each call starts with an empty cache

    def __init__(self, device: torch.device) -> None:
        self._flushed = torch.empty(FLUSHED_BYTES, dtype=torch.uint8, device=device)

    def seconds_per_call(self, work: Work, calls: int) -> float:
        milliseconds = 0.0
        for _ in range(calls):
            self._flushed.zero_()
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            work()
            end.record()
            end.synchronize()
            milliseconds += begin.elapsed_time(end)
        return milliseconds / 1e3 / calls


def clock_of(device: torch.device, wall: bool = False) -> Clock:
    """The clock for work on a device; ``wall`` for work that is compared across threads."""
    return EventClock(device) if device.type == "cuda" else HostClock(wall)


# ---- the engine --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timing:
    """Seconds of one call, one value a round, rounds alike in all contenders."""

    rounds: list[float]

    @property
    def seconds(self) -> float:
        return median(self.rounds)

    @property
    def too_few(self) -> bool:
        """Rounds for percentiles, or for an interval."""
        return len(self.rounds) < LEAST_ROUNDS

    def spread(self) -> tuple[float, float, float]:
        """The 20th percentile of the rounds, their median and the 80th percentile."""
        fifths = quantiles(self.rounds, n=5)
        return fifths[0], self.seconds, fifths[3]

    def ratio_to(self, other: Timing) -> float:
        """How many times longer this takes: median of the rounds' own ratios."""
        return median(a / b for a, b in zip(self.rounds, other.rounds))

    def interval_of_ratio(self, other: Timing) -> tuple[float, float]:
        """Bounds of the true median of the rounds' ratios, 95 %, by the order of the rounds alone
        (the binomial interval): it assumes nothing about how noise is distributed. Of too few
        rounds, whose range holds the median less often than that, the range."""
        ratios = sorted(a / b for a, b in zip(self.rounds, other.rounds))
        outside = _left_out(len(ratios))
        return ratios[outside], ratios[-1 - outside]

    def ratio_spread(self, other: Timing) -> tuple[float, float]:
        """Quartiles of the rounds' ratios."""
        low, _, high = quantiles((a / b for a, b in zip(self.rounds, other.rounds)), n=4)
        return low, high


def _left_out(count: int) -> int:
    """How many of the sorted values lie outside of the interval on either side: as many as leave
    the true median inside with the confidence. Each value is below it as often as above."""
    outside, beyond = 0, 2.0  # of 2^count ways to fall, those that leave the median outside
    while beyond <= (1 - CONFIDENCE) * 2.0**count:
        outside += 1
        beyond += 2 * math.comb(count, outside)
    return max(0, outside - 1)


class ContenderFailed(Exception):
    """A contender raised an error in its turn."""

    def __init__(self, name: str, error: BaseException) -> None:
        super().__init__(f"{name}: {error}")
        self.name = name
        self.error = error


def _turn(name: str, work: Work, clock: Clock, calls: int) -> float:
    try:
        return clock.seconds_per_call(work, calls)
    except ERRORS as error:
        raise ContenderFailed(name, error) from error


def _warm_up(name: str, work: Work, clock: Clock, most_seconds: float) -> float:
    """The shortest of a few calls; where calls are long, of one."""
    shortest = float("inf")
    for _ in range(WARM_UP_CALLS):
        shortest = min(shortest, _turn(name, work, clock, 1))
        if shortest > most_seconds / 20:
            break
    return shortest


def raise_trim_threshold() -> None:
    """Frees one block of 30 MB, after which glibc keeps freed memory instead of returning it.

    Any training loop does this by itself. Without it a fresh process gives every large
    gradient back to the system and faults it in again on each call, which no loss can help.
    """
    torch.empty(30 * 2**20, dtype=torch.uint8).fill_(0)


def interleave(
    contenders: Mapping[str, Work],
    clock: Clock,
    rounds: int,
    most_seconds: float = float("inf"),
) -> dict[str, Timing]:
    """Times the contenders in turns; each round starts with another one.

    Args:
        contenders: what to call, by name.
        clock: what takes the time.
        rounds: turns of each contender, at least six; fewer if they would take
            ``most_seconds``.
        most_seconds: rough limit for the whole, by the clock and, where the machine is busy, on the
            wall.

    Raises:
        ContenderFailed: if one raises an error, with its name.
    """
    raise_trim_threshold()
    calls = {}
    expected = 0.0
    for name, work in contenders.items():
        once = _warm_up(name, work, clock, most_seconds)
        calls[name] = max(1, round(clock.turn_seconds / max(once, 1e-9)))
        expected += calls[name] * once
    rounds = max(LEAST_ROUNDS, int(min(rounds, most_seconds / expected)))

    taken: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    ends = time.perf_counter() + most_seconds
    for turn in range(rounds):
        if turn >= LEAST_ROUNDS and time.perf_counter() > ends:
            break
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            taken[name].append(_turn(name, contenders[name], clock, calls[name]))
    return {name: Timing(seconds) for name, seconds in taken.items()}


def measure(work: Work, clock: Clock, rounds: int) -> Timing:
    """Times one contender alone, where the others cannot be built beside it."""
    return interleave({"": work}, clock, rounds)[""]
