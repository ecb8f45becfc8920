"""The speed of a copy: the best of several, larger than the cache, on the threads of the row."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("rich", reason="the bench extras are not installed")

from ganloss_fast.bench import bandwidth, machine, runner, timing
from ganloss_fast.bench.workload import EAGER, OURS, Workload

CPU = torch.device("cpu")
MEGABYTE = 10**6


@pytest.fixture(autouse=True)
def small_cache(monkeypatch):
    monkeypatch.setattr(machine, "last_level_cache", lambda device: MEGABYTE)


class Clock:
    """One copy of so many elements takes so many seconds."""

    name, turn_seconds = "test", 0.0

    def __init__(self, seconds) -> None:
        self.seconds = iter(seconds)

    def seconds_per_call(self, work, calls):
        work()
        return next(self.seconds)


def test_the_best_round_of_the_best_size_counts():
    sizes = [2 * MEGABYTE, 4 * MEGABYTE, 8 * MEGABYTE]
    assert [2 * 4 * each for each in bandwidth.copies(CPU)] == sizes
    warm_up, slow = timing.WARM_UP_CALLS * [9.0], (timing.LEAST_ROUNDS - 1) * [9.0]
    fastest = (1.0, 0.001, 4.0)
    clock = Clock([each for best in fastest for each in (*warm_up, *slow, best)])
    assert bandwidth.of_a_copy(CPU, clock) == pytest.approx(sizes[1] / 0.001 / 1e9)


def test_a_copy_leaves_memory_free_and_one_is_always_made(monkeypatch):
    for free, count in ((40 * MEGABYTE, 3), (20 * MEGABYTE, 2), (MEGABYTE, 1), (None, 3)):
        monkeypatch.setattr(machine, "free_memory", lambda device, free=free: free)
        assert len(bandwidth.copies(CPU)) == count


def test_a_cache_that_the_system_does_not_name_is_assumed(monkeypatch):
    monkeypatch.setattr(machine, "last_level_cache", lambda device: None)
    assert bandwidth.cache_bytes(CPU) == bandwidth.ASSUMED_CACHE


def test_the_cache_is_read_from_the_system(monkeypatch, tmp_path):
    monkeypatch.undo()
    for k, size in enumerate(("32K", "1024K", "16M", "odd")):
        (tmp_path / f"index{k}").mkdir()
        (tmp_path / f"index{k}" / "size").write_text(size + "\n")
    monkeypatch.setattr(machine, "CACHES", tmp_path)
    assert machine.last_level_cache(CPU) == 16 << 20
    monkeypatch.setattr(machine, "CACHES", tmp_path / "nowhere")
    assert machine.last_level_cache(CPU) is None


def workload(name: str, bytes_: int | None, threads: int | None = None) -> Workload:
    def build(device):
        x = torch.ones(8)
        return {OURS: lambda: [x + 1], EAGER: lambda: [x + 1]}

    return Workload(name, "s", build, bytes=bytes_, threads=threads)


def test_rows_are_compared_with_the_copy_on_their_threads_and_not_within_the_cache(monkeypatch):
    measured = []

    def of_a_copy(device, clock):
        measured.append((torch.get_num_threads(), clock.name))
        return 10.0 * torch.get_num_threads()

    monkeypatch.setattr(bandwidth, "of_a_copy", of_a_copy)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        plan = runner.Plan(CPU, rounds=6, most_seconds=0.001)
        asked = [
            workload("in the cache", MEGABYTE),
            workload("beyond it", MEGABYTE + 1),
            workload("of no bytes", None),
            workload("on two", MEGABYTE + 1, threads=2),
            workload("on two, again", MEGABYTE + 1, threads=2),
        ]
        found = {rows[0].workload: rows[0] for rows in runner.run(asked, plan)}
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert measured == [(1, "processor time"), (2, "wall time")]
    assert {(row.threads, row.clock) for row in found.values()} == set(measured)
    assert (found["on two"].threads, found["on two"].clock) == (2, "wall time")
    assert found["in the cache"].of_copy_bandwidth is None
    assert found["of no bytes"].of_copy_bandwidth is None
    for name, copy in (("beyond it", 10.0), ("on two", 20.0), ("on two, again", 20.0)):
        row = found[name]
        assert row.copy_GB_per_s == copy
        assert row.of_copy_bandwidth == pytest.approx(row.GB_per_s / copy, abs=1e-4)


# ---- rounds ------------------------------------------------------------------------------------


def chance_of_the_median_within(count: int, outside: int) -> float:
    """By trying: every way in which ``count`` values can fall below or above the true median."""
    ways = [bin(way).count("1") for way in range(2**count)]
    return sum(outside < below < count - outside for below in ways) / len(ways)


@pytest.mark.parametrize("count", range(6, 15))
def test_the_interval_is_the_narrowest_that_holds_the_median_95_times_in_100(count):
    values = [float(k) for k in range(1, count + 1)]
    low, high = timing.Timing(values).interval_of_ratio(timing.Timing(count * [1.0]))
    outside = int(low) - 1
    assert high == count - outside
    assert chance_of_the_median_within(count, outside) >= 0.95
    assert chance_of_the_median_within(count, outside + 1) < 0.95


def test_of_too_few_rounds_there_is_a_range_and_no_percentile():
    assert chance_of_the_median_within(5, 0) < 0.95
    few = timing.Timing([4.0, 2.0])
    assert few.too_few
    assert few.interval_of_ratio(timing.Timing([1.0, 1.0])) == (2.0, 4.0)
    observed = runner.memory.Observed(1, 1)
    times = runner._times(workload("w", None), few, observed, few)
    assert (times["p50_us"], times["ratio_low"], times["ratio_high"]) == (3e6, 1.0, 1.0)
    assert "p20_us" not in times
    assert not timing.Timing(6 * [1.0]).too_few


def test_percentiles_of_the_least_rounds_lie_within_them():
    low, middle, high = timing.Timing([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).spread()
    assert (low, middle, high) == pytest.approx((1.4, 3.5, 5.6))
