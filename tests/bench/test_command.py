"""The command: what it measures, keeps and says, on workloads that take no time."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys

import pytest
import torch

pytest.importorskip("jinja2", reason="the bench extras are not installed")
pytest.importorskip("matplotlib", reason="the bench extras are not installed")
pytest.importorskip("rich", reason="the bench extras are not installed")

from benchmarks import penalty_workloads
from ganloss_fast.bench import catalogue, command, results, runner, workload
from ganloss_fast.bench.workload import EAGER, OURS, Workload

pytestmark = pytest.mark.usefixtures("no_copy")
ARGUMENTS = ["run", "--quick", "--rounds", "5"]


def sum_of():
    def build(device: torch.device) -> dict[str, workload.Contender]:
        x = torch.randn(400, device=device)
        return {OURS: lambda: [x.sum()], EAGER: lambda: [x.double().sum().float()]}

    return build


def failing(error: Exception):
    def build(device: torch.device) -> dict[str, workload.Contender]:
        def fail():
            raise error

        return {**sum_of()(device), "torch.compile": fail}

    return build


GOOD = Workload("good", "tests", sum_of(), quick=True, shapes="400", bytes=1600)
OTHER = Workload("other", "tests", sum_of(), quick=True)


def run(*arguments: str, workloads=(GOOD, OTHER)) -> int:
    return command.main(arguments, workloads)


def quick(*arguments: str, workloads=(GOOD, OTHER)) -> int:
    return run(*ARGUMENTS, *arguments, workloads=workloads)


def test_every_workload_is_listed_with_its_sizes(capsys):
    assert command.main(["list"]) == 0
    shown = capsys.readouterr().out
    names = {each.name for each in catalogue.WORKLOADS}
    assert len(names) == len(catalogue.WORKLOADS)
    assert "hinge, 64 logits" in shown
    assert "64x1, 64x1" in shown


def test_a_run_writes_the_same_rows_as_csv_and_as_json_lines(tmp_path):
    assert quick("--out", str(tmp_path)) == 0
    with (tmp_path / results.CSV).open(newline="") as file:
        table = list(csv.DictReader(file))
    rows = results.read_rows(tmp_path)
    assert [row["workload"] for row in table] == [row.workload for row in rows]
    assert {(row.workload, row.contender) for row in rows} == {
        (name, contender) for name in ("good", "other") for contender in (OURS, EAGER)
    }
    ours = next(row for row in rows if (row.workload, row.contender) == ("good", OURS))
    assert 0 < ours.p20_us <= ours.p50_us <= ours.p80_us
    assert ours.ratio_low <= ours.ratio <= ours.ratio_high
    assert ours.GB_per_s == pytest.approx(1600 / ours.p50_us / 1e3, abs=0.01)
    assert ours.operators == 1
    assert ours.difference < 1e-5
    assert (ours.threads, ours.seed, ours.torch) == (1, 0, torch.__version__)


def test_a_second_run_is_appended_and_the_last_row_counts(tmp_path):
    assert quick("--only", "good", "--out", str(tmp_path)) == 0
    assert quick("--only", "good", "--seed", "7", "--out", str(tmp_path)) == 0
    assert len((tmp_path / results.JSON_LINES).read_text().splitlines()) == 4
    assert len((tmp_path / results.CSV).read_text().splitlines()) == 5
    assert {row.seed for row in results.read_rows(tmp_path)} == {7}


def test_an_interrupted_run_keeps_its_rows(tmp_path, capsys):
    def build(device: torch.device) -> dict[str, workload.Contender]:
        raise KeyboardInterrupt

    never = Workload("never", "tests", build, quick=True)
    assert quick("--out", str(tmp_path), workloads=(GOOD, never, OTHER)) == 130
    assert {row.workload for row in results.read_rows(tmp_path)} == {"good"}
    assert "Interrupted" in capsys.readouterr().out


def test_a_row_that_was_cut_off_is_left_out(tmp_path):
    quick("--only", "good", "--out", str(tmp_path))
    with (tmp_path / results.JSON_LINES).open("a") as file:
        file.write('{"workload": "half')
    assert len(results.read_rows(tmp_path)) == 2


# ---- failures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "failed: out of memory"),
        (RuntimeError("[enforce] DefaultCPUAllocator: can't allocate memory"), "out of memory"),
        (ValueError("no such thing\nand more"), "failed: ValueError: no such thing"),
        (RuntimeError("No working C++ compiler found in"), "found no C++ compiler"),
    ],
)
def test_a_contender_that_fails_costs_its_own_row(tmp_path, capsys, error, said):
    bad = Workload("bad", "tests", failing(error), quick=True)
    plan = runner.Plan(torch.device("cpu"), rounds=5, most_seconds=0.1)
    (rows,) = runner.run([bad], plan)
    assert [row.measured for row in rows] == [True, True, False]
    assert said in rows[-1].status
    assert run("run", "--rounds", "5", "--seconds", "0.1", workloads=(bad,)) == 1
    assert said in capsys.readouterr().out.replace("\n", "")


def test_a_contender_that_fails_in_a_later_turn_costs_its_own_row():
    calls = []

    def build(device: torch.device) -> dict[str, workload.Contender]:
        def fail_later():
            calls.append(1)
            if len(calls) > 6:
                raise torch.OutOfMemoryError("out of memory")
            return sum_of()(device)[OURS]()

        return {**sum_of()(device), "compat alone": fail_later}

    plan = runner.Plan(torch.device("cpu"), rounds=5, most_seconds=0.1)
    torch.manual_seed(0)
    (rows,) = runner.run([Workload("late", "tests", build)], plan)
    assert [row.status for row in rows][:2] == ["measured", "measured"]
    assert not rows[2].measured


def test_a_workload_that_cannot_be_built_is_one_failed_row():
    def build(device: torch.device) -> dict[str, workload.Contender]:
        raise MemoryError

    plan = runner.Plan(torch.device("cpu"), rounds=5, most_seconds=0.1)
    failed, good = runner.run([Workload("large", "tests", build), GOOD], plan)
    assert [row.status for row in failed] == ["failed: out of memory"]
    assert all(row.measured for row in good)


# ---- bad input: one line each ------------------------------------------------------------------


def complaint(capsys, *arguments: str) -> str:
    assert run(*arguments) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


def test_an_unknown_workload_names_the_known_ones(capsys):
    said = complaint(capsys, "run", "--only", "nonsense")
    assert "nothing of 2 has 'nonsense' in its name" in said
    assert "good" in said
    assert said.count("\n") == 1


def test_one_unknown_workload_among_known_ones_is_not_passed_over(capsys):
    said = complaint(capsys, "run", "--only", "good", "--only", "nonsense")
    assert "nothing of 2 has 'nonsense' in its name" in said


def test_a_workload_that_is_not_quick_is_refused_for_quick(capsys):
    slow = Workload("slow", "tests", sum_of())
    assert command.main(["run", "--quick"], (slow,)) == 2
    said = capsys.readouterr().err
    assert "--quick: slow" in said
    assert said.count("\n") == 1


def test_a_disk_that_is_full_is_said_in_one_line(capsys, tmp_path, monkeypatch):
    def full(self, values):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(csv.DictWriter, "writerow", full)
    monkeypatch.setattr(csv.DictWriter, "writeheader", lambda self: None)
    said = complaint(capsys, *ARGUMENTS, "--out", str(tmp_path))
    assert f"--out: cannot write to {tmp_path}: No space left on device" in said


@pytest.mark.parametrize("name", ["eagerly", "jax", "ganloss_fast, tpu"])
def test_a_contender_is_known_by_its_whole_name(capsys, name):
    assert f"got '{name}'" in complaint(capsys, "run", "--contender", name)


def test_an_unknown_contender_names_the_known_ones(capsys):
    said = complaint(capsys, "run", "--contender", "jax")
    assert "expected one of ganloss_fast" in said
    assert said.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_named(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    said = complaint(capsys, "run", "--out", str(tmp_path / "file"))
    assert re.search(r"--out: cannot write to .*file: ", said)
    assert said.count("\n") == 1


def test_rows_of_another_version_are_refused_by_run_and_by_compare(capsys, tmp_path):
    (tmp_path / results.CSV).write_text("workload,time\n")
    assert "another version" in complaint(capsys, "run", "--out", str(tmp_path))
    (tmp_path / results.JSON_LINES).write_text(json.dumps({"format": 99}) + "\n")
    said = complaint(capsys, "compare", str(tmp_path), str(tmp_path))
    assert "written in format 99, this version reads 2" in said


@pytest.mark.parametrize("text", ["", "workload,ratio\nx,2\n", "[]\n"])
def test_a_file_that_holds_no_rows_is_refused(capsys, tmp_path, text):
    (tmp_path / "rows.jsonl").write_text(text)
    said = complaint(capsys, "compare", str(tmp_path), str(tmp_path))
    assert "rows" in said
    assert said.count("\n") == 1


def test_a_missing_file_is_named(capsys, tmp_path):
    assert "nowhere" in complaint(capsys, "compare", str(tmp_path / "nowhere"), str(tmp_path))


@pytest.mark.parametrize(
    "arguments",
    [["run", "--rounds", "0"], ["run", "--device", "tpu"], ["run", "--threads", "x"], []],
)
def test_arguments_that_make_no_sense_are_refused(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(*arguments)
    assert "expected" in capsys.readouterr().err or not arguments


@pytest.mark.parametrize("threads", [10**5, 10**18, 10**19])
def test_more_threads_than_the_machine_has_cores_are_refused(capsys, threads):
    with pytest.raises(SystemExit, match="2"):
        run("run", "--threads", str(threads))
    assert "argument --threads: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--contender", "ganloss_fast, triton"], "on a GPU only"),
        (["--contender", "eager, CUDA graph"], "on a GPU only"),
        (["--quick", "--contender", "torch.compile"], "is left out by --quick"),
        (["--no-compile", "--contender", "torch.compile"], "is left out by --no-compile"),
        (["--quick", "--contender", "ganloss_fast, reference"], "is left out by --quick"),
    ],
)
def test_a_contender_that_cannot_be_had_is_said_before_anything_is_measured(
    capsys, arguments, said
):
    assert said in complaint(capsys, "run", *arguments)
    assert not capsys.readouterr().out


def test_a_contender_that_nothing_has_is_said_and_one_that_a_step_has_is_measured(capsys):
    def build(device: torch.device) -> dict[str, workload.Contender]:
        found = sum_of()(device)
        return {EAGER: found[EAGER], "compat alone, switched": found[OURS]}

    step = Workload("step", "tests", build, quick=True)
    asked = ["--contender", "compat alone, switched"]
    assert quick(*asked, workloads=(step,)) == 0
    assert "compat alone, switched" in capsys.readouterr().out
    assert quick(*asked, workloads=(GOOD,)) == 2
    assert "nothing that was measured has 'compat alone, switched'" in capsys.readouterr().err


def test_only_takes_names_in_any_case(capsys):
    assert run("list", "--only", "GOOD") == 0
    assert "1 workloads" in capsys.readouterr().out


@pytest.mark.parametrize("seed", ["-1", str(2**32), "9" * 5000, "1.5", "x"])
@pytest.mark.parametrize("what", ["run", "train"])
def test_a_seed_that_no_generator_takes_is_refused(capsys, what, seed):
    with pytest.raises(SystemExit, match="2"):
        run(what, "--seed", seed)
    assert "--seed: expected a whole number from 0 to 4294967295" in capsys.readouterr().err


def test_the_first_workload_is_not_said_to_take_all_minutes(capsys):
    assert quick("--only", "good") == 0
    assert "1 of 1: good" in capsys.readouterr().out


@pytest.mark.parametrize("program", ["benchmarks", "ganloss_fast.bench"])
def test_an_interrupt_during_the_imports_is_one_line(program):
    """As if Ctrl-C came while the command is imported."""
    code = (
        "import runpy, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'ganloss_fast.bench.command': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        f"sys.argv = ['x', 'list']; runpy.run_module({program!r}, run_name='__main__')\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 130
    assert ran.stderr.endswith("interrupted\n")
    assert "Traceback" not in ran.stderr


def test_the_workloads_of_the_checkout_say_what_they_are():
    for each in penalty_workloads.workloads():
        assert each.shapes, each.name
        assert each.source, each.name
        assert "weights" in each.direction
