"""The benchmark: what it records, that its contenders agree, and whose time it takes."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("jinja2", reason="the bench extras are not installed")
pytest.importorskip("matplotlib", reason="the bench extras are not installed")
pytest.importorskip("rich", reason="the bench extras are not installed")

from benchmarks import penalties, record
from ganloss_fast.bench import hifigan, machine, runner, timing, workload

REPOSITORY = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def keep_thread_count():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_benchmark_records_every_comparison(tmp_path, capsys):
    arguments = ["--only", "hinge, 64", "--no-compile", "--rounds", "5", "--out", str(tmp_path)]
    assert record.main(arguments) == 0
    rows = read_rows(tmp_path / "cpu.csv")
    assert {row["baseline"] for row in rows} == {workload.EAGER, workload.BUILT_IN}
    assert all(float(row["ratio"]) > 0 for row in rows)
    recorded = json.loads((tmp_path / "cpu.json").read_text())
    assert recorded["machine"]["threads"] == 1
    assert {error["function"] for error in recorded["accuracy"]} == {"softplus", "sigmoid"}
    assert "floors reached" in capsys.readouterr().out


def test_interrupted_benchmark_records_what_it_has(tmp_path, monkeypatch):
    measured = []
    compare = record.compare

    def compare_once(*arguments):
        if measured:
            raise KeyboardInterrupt
        measured.append(arguments)
        return compare(*arguments)

    monkeypatch.setattr(record, "compare", compare_once)
    arguments = ["--only", "64", "--no-compile", "--rounds", "5", "--out", str(tmp_path)]
    assert record.main(arguments) == 130
    assert {row["workload"] for row in read_rows(tmp_path / "cpu.csv")} == {"hinge, 64 logits"}


def test_benchmark_names_its_workloads_when_none_is_meant(capsys):
    with pytest.raises(SystemExit):
        record.main(["--only", "no such workload"])
    complaint = capsys.readouterr().err
    assert "hinge, 64 logits" in complaint
    assert "penalty costs: graph walk" in complaint


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--device", "tpu"], "expected cpu or cuda"),
        (["--threads", "9" * 30], "argument --threads"),
        (["--rounds", "0"], "at least 1"),
        (["--out", __file__], "cannot write to"),  # before anything is measured
    ],
)
def test_arguments_of_the_record_that_make_no_sense_are_refused(capsys, arguments, said):
    with pytest.raises(SystemExit, match="2"):
        record.parse_arguments(arguments)
    assert said in capsys.readouterr().err


def test_a_part_of_the_benchmark_never_takes_the_place_of_the_record():
    assert record.parse_arguments([]).out == record.RESULTS
    assert record.parse_arguments(["--only", "hinge"]).out is None
    assert record.parse_arguments(["--only", "hinge"]).costs == []


def test_make_bench_is_one_command_that_understands_its_arguments():
    """Of two commands the second would stop at the first one's options."""
    rule = (REPOSITORY / "Makefile").read_text().split("\nbench:", 1)[1].split("\n\n", 1)[0]
    assert re.findall(r"python -m (\S+) \$\(ARGS\)", rule) == ["benchmarks.record"]


def test_benchmark_refuses_contenders_that_compute_something_else():
    def build(device: torch.device) -> dict[str, workload.Contender]:
        return {
            workload.OURS: lambda: [torch.ones(3)],
            workload.EAGER: lambda: [torch.ones(3) * 1.01],
        }

    wrong = workload.Workload("wrong", "test", build)
    with pytest.raises(RuntimeError, match=r"wrong, ganloss_fast: failed: differs from eager by"):
        record.compare(wrong, runner.Plan(CPU, rounds=5), timing.HostClock())


def test_hifigan_discriminators_have_the_published_sizes():
    with torch.no_grad():
        found = hifigan.Discriminators()(torch.zeros(1, 1, hifigan.SAMPLES))
    assert tuple(maps[-1].numel() for maps in found) == hifigan.OUTPUT_SIZES
    assert sum(len(maps) for maps in found) == 54
    assert round(sum(fmap.numel() for maps in found for fmap in maps) / 1e6, 3) == 7.705


def test_penalty_costs_are_recorded(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(penalties, "IMAGES", (16, 3, 128, 128))
    assert record.main(["--only", "penalty costs", "--out", str(tmp_path)]) == 0
    recorded = json.loads((tmp_path / "penalties.json").read_text())
    counts = {row["critic"]: row for row in recorded["arithmetic"]}
    assert counts["DCGAN"]["stock"] == pytest.approx(6.0, abs=0.01)
    assert counts["DCGAN"]["auto"] == pytest.approx(4.0, abs=0.01)
    assert recorded["memory"]["chunks_megabytes"] < recorded["memory"]["whole_megabytes"] / 4
    assert "Graph walk" in capsys.readouterr().out


def test_penalty_contenders_agree_and_are_timed(tmp_path):
    arguments = ["--only", "PatchGAN, InstanceNorm: penalty, fast", "--rounds", "5"]
    assert record.main([*arguments, "--out", str(tmp_path)]) == 0
    (row,) = read_rows(tmp_path / "cpu.csv")
    assert row["baseline"] == workload.EAGER
    assert float(row["difference"]) < 1e-5


def test_a_dry_run_of_the_gpu_benchmark_writes_its_table_and_plots(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu", "--dry-run", "--output", str(tmp_path)]
    environment = {**os.environ, "TORCHDYNAMO_DISABLE": "1"}  # CI's GPU session compiles them
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True, timeout=240)
    rows = read_rows(tmp_path / "gpu.csv")
    assert {"native", "as written"} <= {row["backend"] for row in rows}
    assert {"eager", "compiled"} <= {row["mode"] for row in rows}
    assert all(0 < float(r["p20_us"]) <= float(r["p50_us"]) <= float(r["p80_us"]) for r in rows)
    assert json.loads((tmp_path / "gpu.json").read_text())["copy_GB_per_s"] > 0
    plots = {f"{row['op']}-{row['direction']}" for row in rows if row["dtype"] == "float32"}
    assert len(list(tmp_path.glob("*.png"))) == len(plots)


@pytest.mark.parametrize(
    ("served", "name"),
    [(("native", "triton"), "native"), (("triton",), "triton"), ((), "reference")],
)
def test_the_record_says_whose_kernels_ran(served, name, monkeypatch):
    monkeypatch.setattr(machine.backends, "is_native", lambda tensor: "native" in served)
    monkeypatch.setattr(machine.backends, "is_triton", lambda tensor: "triton" in served)
    assert machine.facts()["backend"] == name


# ---- timing ------------------------------------------------------------------------------------


class ScriptedClock:
    """Says how long calls take, and keeps who called."""

    name = "scripted"

    def __init__(self, turn_seconds: float, seconds: dict[str, float]) -> None:
        self.turn_seconds = turn_seconds
        self.seconds = seconds
        self.turns: list[tuple[str, int]] = []

    def seconds_per_call(self, work, calls):
        name = work()
        self.turns.append((name, calls))
        return self.seconds[name]


def test_contenders_take_turns_of_equal_length_and_start_in_turn():
    clock = ScriptedClock(0.004, {"quick": 0.001, "slow": 0.01})
    timed = timing.interleave({"quick": lambda: "quick", "slow": lambda: "slow"}, clock, rounds=6)
    turns = clock.turns[2 * timing.WARM_UP_CALLS :]
    assert turns[:4] == [("quick", 4), ("slow", 1), ("slow", 1), ("quick", 4)]
    assert len(turns) == 2 * 6
    assert timed["slow"].ratio_to(timed["quick"]) == pytest.approx(10)


def test_a_clock_of_single_calls_is_given_single_calls_and_time_limits_hold():
    clock = ScriptedClock(0.0, {"work": 1.0})
    assert len(timing.measure(lambda: "work", clock, rounds=9).rounds) == 9
    assert {calls for _, calls in clock.turns} == {1}
    limited = timing.interleave({"work": lambda: "work"}, clock, rounds=50, most_seconds=7.0)
    assert len(limited["work"].rounds) == 7


def test_the_host_clock_of_one_thread_does_not_count_waiting():
    torch.set_num_threads(1)
    alone = timing.clock_of(CPU)
    torch.set_num_threads(2)
    together = timing.clock_of(CPU)
    assert (alone.name, together.name) == ("processor time", "wall time")
    assert alone.seconds_per_call(lambda: time.sleep(0.05), 1) < 0.03
    assert together.seconds_per_call(lambda: time.sleep(0.05), 1) >= 0.05
    assert together.seconds_per_call(lambda: time.sleep(0.02), 3) == pytest.approx(0.02, rel=0.5)


def test_percentiles_are_in_order_and_the_middle_one_is_the_median():
    low, middle, high = timing.Timing([5.0, 1.0, 4.0, 2.0, 3.0]).spread()
    assert (low, middle, high) == pytest.approx((1.2, 3.0, 4.8))


# ---- what may import what ----------------------------------------------------------------------


def test_neither_the_benchmark_nor_the_critics_know_of_the_demo_or_the_tests():
    helpers = {path.stem for path in REPOSITORY.glob("tests/*.py")}
    folders = ("benchmarks", "critics", "ganloss_fast/bench")
    for path in (path for folder in folders for path in REPOSITORY.glob(f"{folder}/*.py")):
        text = path.read_text()
        imported = set(re.findall(r"^\s*(?:from|import) (\w+)", text, re.M))
        assert not imported & {"demo", "tests", *helpers}, path
        assert "sys.path" not in text, path
