"""Peak memory of one computation on the CPU."""

from __future__ import annotations

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile


def peak_memory(function: Callable[[], object]) -> int:
    """Bytes at the peak of the allocator, above what was there before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        function()
    level = peak = 0
    for event in trace.profiler.kineto_results.events():
        if event.name() == "[memory]":
            level += event.nbytes()
            peak = max(peak, level)
    return peak
