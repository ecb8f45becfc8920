"""The minutes of a run, and the memory of the machine: what gives way, and that it says so."""

from __future__ import annotations

import math

import pytest
import torch

pytest.importorskip("jinja2", reason="the bench extras are not installed")
pytest.importorskip("matplotlib", reason="the bench extras are not installed")
pytest.importorskip("rich", reason="the bench extras are not installed")

from ganloss_fast.bench import budget, command, compare, machine, results, runner
from ganloss_fast.bench.workload import ALL, COMPILE, EAGER, OURS, Workload

pytestmark = pytest.mark.usefixtures("no_copy")
CPU = torch.device("cpu")


class Clock:
    """Passes when it is told to."""

    def __init__(self, monkeypatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(budget.time, "monotonic", lambda: self.now)

    def passes(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def workload(name: str, clock: Clock, work: float = 0.0, compiling: float = 0.0, **more):
    """``work`` seconds pass while it is built, ``compiling`` more in the compiled contender."""

    def build(device):
        clock.passes(work)
        x = torch.randn(8)

        def compiled():
            clock.passes(compiling if not seen else 0.0)
            seen.append(1)
            return [x.sum()]

        seen: list[int] = []
        return {OURS: lambda: [x.sum()], EAGER: lambda: [x.sum()], COMPILE: compiled}

    return Workload(name, "tests", build, **more)


def run(workloads, minutes: float) -> dict[tuple[str, str], results.Row]:
    plan = runner.Plan(CPU, rounds=5, most_seconds=0.01, most_minutes=minutes)
    return {
        (row.workload, row.contender): row for rows in runner.run(workloads, plan) for row in rows
    }


def test_without_a_limit_everything_is_measured(clock):
    found = run([workload(str(k), clock, 60.0, 600.0) for k in range(3)], math.inf)
    assert len(found) == 9
    assert all(row.measured for row in found.values())


def test_compilations_give_way_first_and_the_rest_still_comes(clock):
    workloads = [workload(str(k), clock, work=5.0, compiling=30.0) for k in range(8)]
    found = run(workloads, minutes=3)
    assert clock.now <= 180
    assert all(found[str(k), name].measured for k in range(8) for name in (OURS, EAGER))
    compiled = [found[str(k), COMPILE].measured for k in range(8)]
    # in the fourth 70 s are left, for 30 of compiling and twice 5 for each of five to come; in the
    # sixth 60, and three to come
    assert compiled == [True, True, True, False, False, True, False, False]
    status = found["7", COMPILE].status
    assert status == (
        "not measured: compiling takes about 30 s, which --most-minutes 3 did not leave"
    )
    assert not found["7", COMPILE].failed


def test_the_first_of_many_is_compiled_before_anything_is_known(clock):
    found = run([workload(str(k), clock, work=1.0, compiling=3.0) for k in range(12)], minutes=1.5)
    assert found["0", COMPILE].measured
    assert all(found[str(k), name].measured for k in range(12) for name in (OURS, EAGER))


def test_a_workload_that_there_was_no_time_for_has_a_row_that_says_so(clock):
    found = run([workload(str(k), clock, work=100.0) for k in range(4)], minutes=3)
    late = {key: row.status for key, row in found.items() if not row.measured}
    assert list(late) == [
        ("1", OURS),  # built when the minutes were over
        ("1", EAGER),
        ("1", COMPILE),
        ("2", ALL),
        ("3", ALL),
    ]
    assert set(late.values()) == {"not measured: the 3 minutes of --most-minutes were over"}


def test_rounds_that_do_not_fit_in_are_not_begun(clock):
    calls = []

    def slow():
        clock.passes(40.0)
        calls.append(1)
        return [torch.ones(())]

    slowly = Workload("slow", "tests", lambda device: {OURS: slow, EAGER: lambda: [torch.ones(())]})
    found = run([slowly], minutes=3)
    assert len(calls) == 1
    assert not any(row.measured or row.failed for row in found.values())


def test_the_progress_says_how_long_it_will_take(clock):
    plan = runner.Plan(CPU, rounds=5, most_seconds=0.01, with_compile=False, most_minutes=60)
    left = []
    workloads = [workload(str(k), clock, work=100.0) for k in range(4)]
    for _ in runner.run(workloads, plan, lambda done, workload, seconds: left.append(seconds)):
        pass
    assert left == [math.inf, 300, 200, 100]  # of the first nothing is known


def test_rounds_stop_where_the_wall_says_so():
    calls = []
    work = {"a": lambda: calls.append(1)}

    class Stopped:
        """Processor time that passes hardly, as on a machine that is busy with others."""

        name, turn_seconds = "stopped", 0.0

        def seconds_per_call(self, work, count):
            work()
            return 1e-9

    taken = runner.timing.interleave(work, Stopped(), 10**9, most_seconds=0.05)["a"]
    assert runner.timing.LEAST_ROUNDS <= len(taken.rounds) < 10**7


# ---- memory ------------------------------------------------------------------------------------


def test_a_contender_that_needs_more_memory_than_there_is_is_not_tried(monkeypatch, clock):
    monkeypatch.setattr(machine, "free_memory", lambda device: 10 * 10**9)
    tried = []

    def build(device):
        tried.append(1)
        return {OURS: lambda: [torch.ones(())], EAGER: lambda: 1 / 0}

    large = Workload("large", "tests", build, needs={OURS: 9 * 10**9, EAGER: 11 * 10**9})
    found = run([large], math.inf)
    assert found["large", OURS].measured
    said = "not measured: needs 11.0 GB of memory, 10.0 GB are free"
    assert found["large", EAGER].status == said
    monkeypatch.setattr(machine, "free_memory", lambda device: 10**9)
    tried.clear()
    found = run([large], math.inf)
    assert not any(row.measured for row in found.values())
    assert not tried


def test_a_container_is_held_to_its_own_memory(monkeypatch):
    monkeypatch.setattr(machine, "_available", lambda: 10)
    for group, free in (([4], 4), ([40], 10), ([], 10)):
        monkeypatch.setattr(machine, "_left_of_the_group", lambda group=group: group)
        assert machine.free_memory(CPU) == free
    monkeypatch.setattr(machine, "_available", lambda: None)
    assert machine.free_memory(CPU) is None


def test_the_free_memory_is_that_of_the_machine():
    free = machine.free_memory(CPU)
    if free is None:
        pytest.skip("the system does not say")
    assert 10**7 < free < 10**14


# ---- the command -------------------------------------------------------------------------------


def test_what_there_was_no_time_for_is_no_failure(capsys, clock, monkeypatch, tmp_path):
    workloads = [workload(str(k), clock, work=100.0, quick=True) for k in range(3)]
    arguments = ["run", "--quick", "--most-minutes", "2", "--out", str(tmp_path)]
    assert command.main(arguments, workloads) == 0
    assert "2, every contender: not measured: the 2 minutes" in capsys.readouterr().out
    rows = results.read_rows(tmp_path)
    assert [row.contender for row in rows] == [OURS, EAGER, OURS, EAGER, ALL]
    assert [row.measured for row in rows] == [True, True, False, False, False]


def test_a_row_without_time_is_missing_and_no_regression():
    row = results.Row("w", "s", OURS, "native", "f", "", "float32", "measured", ratio=2.0)
    late = results.Row("w", "s", OURS, "native", "f", "", "float32", "not measured: no time")
    (change,) = compare.compare([row], [late])
    assert change.verdict == "missing"
    assert not compare.has_regressed([change])


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon"])
def test_minutes_that_make_no_sense_are_refused(text, capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(["run", "--most-minutes", text], [])
    assert "expected a number above 0" in capsys.readouterr().err
