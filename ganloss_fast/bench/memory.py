"""What the profiler sees of one computation: operators, launches and peak memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from ganloss_fast._torch import quiet_allocator

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # read at its first use; it speaks of every trace

_COUNTED = ("aten::", "ganloss_fast::")


@dataclass(frozen=True)
class Observed:
    """Of one call."""

    operators: int  # on the CPU: called by nobody but the computation itself; on a GPU: launches
    peak_bytes: int  # above what was allocated before


def peak_memory(function: Callable[[], object]) -> int:
    """Bytes at the peak of the CPU's allocator, above what was there before."""
    return _on_cpu(function).peak_bytes


def observe(function: Callable[[], object], device: torch.device) -> Observed:
    """Calls the function once."""
    if device.type == "cuda":
        return _on_gpu(function, device)
    return _on_cpu(function)


def _on_cpu(function: Callable[[], object]) -> Observed:
    with (
        quiet_allocator(),
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace,
    ):
        function()
    level = peak = operators = 0
    ends: dict[int, int] = {}  # per thread, when the operator that was last counted ends
    for event in _events(trace):
        if event.name() == "[memory]":
            level += event.nbytes()
            peak = max(peak, level)
        elif event.name().startswith(_COUNTED):
            thread = event.start_thread_id()
            if event.start_ns() >= ends.get(thread, 0):
                operators += 1
                ends[thread] = event.start_ns() + event.duration_ns()
    return Observed(operators, peak)


def _on_gpu(function: Callable[[], object], device: torch.device) -> Observed:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    with profile(activities=[ProfilerActivity.CUDA]) as trace:
        function()
        torch.cuda.synchronize(device)
    launches = sum(event.device_type.name == "CUDA" for event in trace.events() or ())
    return Observed(launches, torch.cuda.max_memory_allocated(device) - before)


def _events(trace: Any) -> list[Any]:
    """In the order of their start."""
    return sorted(trace.profiler.kineto_results.events(), key=lambda event: event.start_ns())
