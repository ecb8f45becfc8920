"""The runner of a GPU session: limits, failures and interruptions, with stages made for it."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from benchmarks import gpu_session
from benchmarks.gpu_session import Stage, run_session, stages_for, summary

REPOSITORY = Path(gpu_session.__file__).parents[1]


def stage(name: str, code: str, seconds: float = 30.0, **options) -> Stage:
    return Stage(name, [sys.executable, "-c", code], seconds, "stages.log", **options)


def run(stages: list[Stage], folder: Path, budget: float = 100.0) -> str:
    reports = []
    run_session(
        stages, folder, folder, budget, lambda: reports.append(summary(stages, folder, ["* here"]))
    )
    assert len(reports) >= len(stages)
    return reports[-1]


def test_nothing_of_the_session_needs_rich():
    """A machine with a GPU need not have it, nor a network to get it from."""
    programs = "benchmarks.gpu, benchmarks.gpu_steps, benchmarks.gpu_kernels, benchmarks.tables"
    code = f"import sys; sys.modules['rich'] = None; import {programs}"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, timeout=60)


def test_a_stage_that_fails_does_not_stop_the_next(tmp_path):
    stages = [
        stage("one", "print('first'); raise SystemExit(3)"),
        stage("two", "print('12 passed in 3 s')"),
        stage("three", "", needs="a-program-that-nobody-has"),
    ]
    report = run(stages, tmp_path)
    assert [s.status for s in stages] == [
        "failed with exit status 3",
        "passed",
        "left out: a-program-that-nobody-has is not installed",
    ]
    assert "| two | passed |" in report
    assert "12 passed in 3 s" in report
    assert "first" in (tmp_path / "stages.log").read_text()


def test_a_stage_that_hangs_is_ended_with_its_children_and_keeps_its_log(tmp_path):
    child = "import time; time.sleep(60)"
    code = f"""
        import subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-c", {child!r}])
        print("child", child.pid, flush=True)
        time.sleep(60)
    """
    stages = [stage("hangs", textwrap.dedent(code), seconds=3.0), stage("next", "print('ran')")]
    started = time.monotonic()
    run(stages, tmp_path)
    assert time.monotonic() - started < 30
    assert [s.status for s in stages] == ["stopped after 3 s", "passed"]
    log = (tmp_path / "stages.log").read_text()
    pid = int(log.rsplit("child ", 1)[1].split()[0])
    assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text()


def test_the_budget_shortens_stages_and_leaves_something_for_the_later_ones(tmp_path):
    budget = gpu_session.LEAST_SECONDS * 2 + 2.0
    stages = [stage("long", "import time; time.sleep(60)"), *[stage(n, "") for n in "ab"]]
    run(stages, tmp_path, budget)
    assert [s.status for s in stages] == ["stopped after 2 s", "passed", "passed"]


def test_without_time_a_stage_is_left_out_and_says_so(tmp_path):
    stages = [stage("one", "")]
    run(stages, tmp_path, budget=0.0)
    assert stages[0].status == "left out: no time"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_session_keeps_what_it_found(tmp_path, how):
    code = f"""
        import signal, sys
        from pathlib import Path
        from benchmarks import gpu_session
        from benchmarks.gpu_session import Stage
        python = [sys.executable, "-c"]
        done = Stage("done", [*python, "print('found')"], 30, "stages.log")
        hangs = Stage("hangs", [*python, "import time; time.sleep(60)"], 60, "stages.log")
        gpu_session.stages_for = lambda *_: [done, hangs]
        gpu_session.copy_sources = lambda target: target.mkdir(parents=True, exist_ok=True)
        gpu_session.REPOSITORY = Path({str(tmp_path)!r})
        sys.argv = ["gpu_session", "--output", {str(tmp_path / "out")!r}]
        gpu_session.main()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("hangs"):
                break
        time.sleep(1.0)
        process.send_signal(how)
        assert process.wait(timeout=30) == 130
    report = (tmp_path / "out" / "summary.md").read_text()
    assert "| done | passed |" in report
    assert "| hangs | interrupted |" in report


@pytest.mark.parametrize("gpu", ["9.0", None])
def test_the_files_of_a_session_are_few_and_plainly_named(tmp_path, gpu):
    """Some machines give back eight files at most."""
    stages = stages_for(gpu, tmp_path)
    names = {s.log for s in stages} | {"gpu.csv", "gpu.json", "steps.csv", "summary.md"}
    assert len(names) <= 8
    assert all(name.replace("_", "").replace(".", "").isalnum() for name in names)
    order = [s.name for s in stages]
    assert order.index("GPU tests") < order.index("benchmark") < order.index("memcheck")


def test_what_needs_a_gpu_is_only_tried_dry_without_one(tmp_path):
    for s in stages_for(None, tmp_path):
        if s.name in ("benchmark", "training steps"):
            assert "--dry-run" in s.command
        if s.needs:
            assert s.command == [s.needs, "--version"]
