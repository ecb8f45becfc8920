"""The gate: ratios of quick workloads against a base; a slowdown of 1.5 shuts it."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

pytest.importorskip("jinja2", reason="the bench extras are not installed")
pytest.importorskip("matplotlib", reason="the bench extras are not installed")
pytest.importorskip("rich", reason="the bench extras are not installed")

from ganloss_fast.bench import catalogue, command, results
from ganloss_fast.bench.workload import EAGER, OURS

pytestmark = pytest.mark.usefixtures("no_copy")
WORKLOAD = next(each for each in catalogue.WORKLOADS if each.name == "hinge, 16x1x62x62")
ARGUMENTS = ["--only", WORKLOAD.name, "--rounds", "41"]


@pytest.fixture(autouse=True)
def keep_thread_count():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def slowed(factor: float):
    """The workload, with ours ``factor`` times slower: some calls do their work twice."""

    def build(device):
        found = WORKLOAD.build(device)
        work, owed = found[OURS], [0.0]

        def slower():
            owed[0] += factor - 1
            if owed[0] >= 1:
                owed[0] -= 1
                work()
            return work()

        return {OURS: slower, EAGER: found[EAGER]}

    return replace(WORKLOAD, build=build)


def gate(base, workload) -> int:
    return command.main(["gate", "--base", str(base), *ARGUMENTS], [workload])


def test_a_slowdown_of_one_and_a_half_shuts_the_gate_and_none_leaves_it_open(tmp_path, capsys):
    assert command.main(["run", "--quick", *ARGUMENTS, "--out", str(tmp_path)], [WORKLOAD]) == 0
    assert gate(tmp_path, slowed(1.5)) == 1
    said = capsys.readouterr().out
    assert "Measured again" in said
    assert "The gate is shut" in said
    assert gate(tmp_path, WORKLOAD) == 0
    assert "The gate is open" in capsys.readouterr().out


def record(folder, ratio: float, threads: int = 1):
    line = {
        "workload": WORKLOAD.name,
        "section": "s",
        "baseline": EAGER,
        "ratio": ratio,
        "ratio_lower_quartile": ratio,
        "ratio_upper_quartile": ratio,
    }
    path = folder / "cpu.json"
    path.write_text(json.dumps({"machine": {"threads": threads}, "speed": [line]}))
    return path


@pytest.mark.parametrize(("ratio", "status"), [(1.0, 0), (1000.0, 1)])
def test_the_record_of_the_checkout_is_a_base_too(tmp_path, ratio, status):
    assert gate(record(tmp_path, ratio), WORKLOAD) == status


@pytest.mark.parametrize("ratio", [None, math.nan, math.inf, 0.0, "2"])
def test_a_record_without_a_number_is_no_base(tmp_path, capsys, ratio):
    assert gate(record(tmp_path, ratio), WORKLOAD) == 2
    assert "ratio is" in capsys.readouterr().err


def test_a_base_of_other_threads_or_of_several_places_is_refused(monkeypatch, tmp_path, capsys):
    arguments = ["gate", *ARGUMENTS, "--base"]
    assert command.main([*arguments, str(record(tmp_path, 1.0, threads=2))], [WORKLOAD]) == 2
    assert "was taken on cpu with 2 thread(s)" in capsys.readouterr().err
    assert judged(monkeypatch, tmp_path, replace(row(3.0), device="cuda"), row(3.0)) == 2
    assert "was taken on cuda with 1 thread(s)" in capsys.readouterr().err
    assert judged(monkeypatch, tmp_path, row(3.0), row(3.0)) == 2
    assert "holds rows of 2 places" in capsys.readouterr().err


# ---- without measuring -------------------------------------------------------------------------


def row(ratio: float | None, status: str = "measured") -> results.Row:
    empty = results.Row(WORKLOAD.name, "s", OURS, "native", "f", "", "float32", status, p50_us=1.0)
    bounds = (None, None) if ratio is None else (0.99 * ratio, 1.01 * ratio)
    return replace(empty, ratio=ratio, ratio_low=bounds[0], ratio_high=bounds[1])


def judged(monkeypatch, tmp_path, base, now, *more) -> int:
    """The gate, where all that is measured is this row, or nothing."""
    monkeypatch.setattr(command, "measure", lambda asked, plan, console: [now] if now else [])
    files = results.ResultFiles(tmp_path)
    files.write([base])
    files.close()
    return command.main(["gate", "--base", str(tmp_path), *ARGUMENTS, *more], [WORKLOAD])


@pytest.mark.parametrize(
    ("now", "more", "status", "said"),
    [
        (row(3.0), [], 0, "The gate is open"),
        (row(2.0), [], 1, "ratios fell"),
        (row(3.63), [], 0, "faster than its base by more than the tolerance (1.21 times)"),
        (row(3.63), ["--both-ways"], 1, "ratios grew beyond their base"),
        (row(3.59), ["--both-ways"], 0, "The gate is open"),
        (row(3.59 / 1.5), ["--both-ways"], 1, "ratios fell"),  # 1.5 times slower at the very edge
        (row(None), [], 1, "there is no ratio"),
        (row(None, "not measured: no time"), [], 1, "there is no ratio"),
        (row(None, "failed: out of memory"), [], 1, "ratios fell, or what has one failed"),
        (None, [], 1, "there is no ratio"),
    ],
)
def test_what_opens_the_gate_and_what_shuts_it(
    monkeypatch, tmp_path, capsys, now, more, status, said
):
    assert judged(monkeypatch, tmp_path, row(3.0), now, *more) == status
    assert said in capsys.readouterr().out


def test_what_looks_slower_is_measured_again_for_longer(monkeypatch, tmp_path):
    plans = []

    def measure(asked, plan, console):
        plans.append(plan)
        return [row(2.0 if len(plans) == 1 else 3.0)]

    files = results.ResultFiles(tmp_path)
    files.write([row(3.0)])
    files.close()
    monkeypatch.setattr(command, "measure", measure)
    assert command.main(["gate", "--base", str(tmp_path), *ARGUMENTS], [WORKLOAD]) == 0
    first, second = plans
    assert (second.rounds, second.most_seconds) == (3 * first.rounds, 3 * first.most_seconds)


def test_a_base_without_a_ratio_holds_nothing_to_it(monkeypatch, tmp_path):
    assert judged(monkeypatch, tmp_path, row(None), row(3.0)) == 1


def test_a_base_with_a_broken_line_is_refused(monkeypatch, tmp_path, capsys):
    path = tmp_path / results.JSON_LINES
    path.write_text('{"workload": "cut off\n')
    assert judged(monkeypatch, tmp_path, row(3.0), row(3.0)) == 2
    assert "line 1: left out" in capsys.readouterr().err


def test_what_the_base_lacks_is_not_passed_over(tmp_path, capsys):
    other = replace(WORKLOAD, name="another")
    arguments = ["gate", "--base", str(record(tmp_path, 1.0))]
    asked = ["--only", WORKLOAD.name, "--only", "another"]
    assert command.main([*arguments, *asked], [WORKLOAD, other]) == 2
    assert "lacks workloads that are asked for" in capsys.readouterr().err
    assert command.main(arguments, [other]) == 2
    assert "none of the workloads" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "{}", '{"speed": [{}]}', '{"speed": []}'])
def test_what_is_no_record_is_said_in_one_line(tmp_path, capsys, text):
    path = tmp_path / "cpu.json"
    path.write_text(text)
    assert gate(path, WORKLOAD) == 2
    said = capsys.readouterr().err
    assert "cpu.json" in said
    assert said.count("\n") == 1


def test_what_is_named_is_measured_quick_or_not(tmp_path, capsys):
    named = replace(WORKLOAD, quick=False)
    assert gate(record(tmp_path, 1.0), named) == 0
    assert WORKLOAD.name in capsys.readouterr().out
