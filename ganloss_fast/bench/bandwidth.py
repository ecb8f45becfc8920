"""What memory can reach, by a copy; and what may be compared with it.

A copy reads as much as it writes, as a loss does whose gradients are as large as its logits. What
fits into the last-level cache moves faster than any copy from memory: to call that a share of the
copy's speed would say nothing, so such rows have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from ganloss_fast.bench import machine, timing
from ganloss_fast.bench.timing import Clock

ASSUMED_CACHE = 32 << 20  # where the system does not say
TIMES_THE_CACHE = (2, 4, 8)  # bytes of the copies, both sides; which is fastest differs
ELEMENT = 4


def cache_bytes(device: torch.device) -> int:
    return machine.last_level_cache(device) or ASSUMED_CACHE


def is_beyond_cache(bytes_: int, device: torch.device) -> bool:
    """Whether a row that moves these bytes is compared with a copy."""
    return bytes_ > cache_bytes(device)


def copies(device: torch.device) -> list[int]:
    """Elements of each copy: larger than the cache, and no burden on the memory that is free."""
    free = machine.free_memory(device)
    asked = [times * cache_bytes(device) for times in TIMES_THE_CACHE]
    fitting = [size for size in asked if free is None or size < free // 4] or asked[:1]
    return [size // (2 * ELEMENT) for size in fitting]


def of_a_copy(device: torch.device, clock: Clock) -> float:
    """GB/s of the fastest copy, in memory that was written before, on torch's threads."""
    return max(_speed(device, clock, elements) for elements in copies(device))


def _speed(device: torch.device, clock: Clock, elements: int) -> float:
    source = torch.ones(elements, device=device)
    target = torch.zeros_like(source)
    taken = timing.measure(lambda: target.copy_(source), clock, timing.LEAST_ROUNDS)
    return 2 * ELEMENT * elements / min(taken.rounds) / 1e9


@dataclass
class Copies:
    """The speed of a copy, measured once for each number of threads and each clock."""

    device: torch.device
    found: dict[tuple[int, str], float] = field(default_factory=dict)

    def facts(self, clock: Clock) -> Mapping[str, float]:
        """On the threads that torch has now."""
        key = torch.get_num_threads(), clock.name
        if key not in self.found:
            self.found[key] = of_a_copy(self.device, clock)
        return {"copy_GB_per_s": round(self.found[key], 2)}
