"""Minutes, shared among the workloads of a run.

Three things give way, in this order: the rounds of slow workloads; torch.compile, whose compilation
takes longer than all else; and at last workloads themselves. Whatever gave way has a row that says
so.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from statistics import mean, median

NOT_MEASURED = "not measured: "
RESERVE = 2.0  # times what went before
FIRST_GUESS = 5.0  # seconds of a workload, and of a compilation, before any was seen


@dataclass
class Budget:
    """Of one run; the clock on the wall counts, as it does for whoever waits.

    Args:
        minutes: the most that the run may take; ``math.inf`` for no limit.
        workloads: how many there are.
    """

    minutes: float = math.inf
    workloads: int = 1
    began: float = field(default_factory=lambda: time.monotonic())
    taken: list[float] = field(default_factory=list)  # seconds of each workload so far
    compiling: list[float] = field(default_factory=list)  # seconds of each compilation so far

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.began

    @property
    def left(self) -> float:
        """Seconds until the minutes are over."""
        return 60 * self.minutes - self.elapsed

    @property
    def to_come(self) -> int:
        """Workloads, with the one at hand."""
        return max(1, self.workloads - len(self.taken))

    @property
    def over(self) -> bool:
        return self.left <= 0

    def share(self) -> float:
        """Seconds for the workload at hand."""
        return max(0.0, self.left) / self.to_come

    def may_compile(self) -> bool:
        """Whether a compilation would leave time for all that is to come, also where that is slower
        than what went before."""
        return self.left - self._of_compiling() >= (
            RESERVE * self.to_come * self._without_compiling()
        )

    def _of_compiling(self) -> float:
        """Seconds of a compilation: the first, which starts the compiler, is longer than most."""
        return median(self.compiling) if self.compiling else FIRST_GUESS

    def _without_compiling(self) -> float:
        """Seconds of a workload without its compilation: the mean of those so far."""
        if not self.taken:
            return min(FIRST_GUESS, self.share() / (2 * RESERVE))
        return mean(self.taken) - sum(self.compiling) / len(self.taken)

    def expected(self) -> float:
        """Seconds until the run ends, as it goes; infinite while nothing is known."""
        if not self.taken:
            return math.inf
        return min(self.left, self.to_come * mean(self.taken))

    def no_time(self) -> str:
        return f"{NOT_MEASURED}the {self.minutes:g} minutes of --most-minutes were over"

    def no_time_to_compile(self) -> str:
        seconds = self._of_compiling()
        return (
            f"{NOT_MEASURED}compiling takes about {seconds:.0f} s, which --most-minutes "
            f"{self.minutes:g} did not leave"
        )
