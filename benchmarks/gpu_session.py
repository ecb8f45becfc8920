"""Everything that a machine with a GPU is wanted for, in one command and without a network.

    make gpu PYTHON=python3 OUT=folder

Builds the package for this GPU alone, then tests it, times it and looks at it with NVIDIA's tools.
Each stage has its time limit and its log, and one that fails does not stop the next. The summary
is written anew after every stage, so that whatever ends the session leaves what was found.
Without a GPU every stage goes as far as it can, and says so.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib.util
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
COPIED = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "csrc")
COPIED_TOO = ("ganloss_fast", "tests", "benchmarks", "critics", "demo", "docs", "examples")
LEAST_SECONDS = 12.0  # what a later stage is left, however long the earlier ones take
NO_GPU = "no GPU"

# Of the GPU tests, what covers every kernel in a few launches; captures need the caching
# allocator, which would hide overruns between tensors.
SANITIZED = "(unaligned or streams or bitwise) and not captured and not 2_to_the_31"
METRICS = (
    "gpu__time_duration.sum",
    "dram__bytes.sum",
    "dram__bytes.sum.per_second",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed",
)


# ---- stages ------------------------------------------------------------------------------------


@dataclass
class Stage:
    """One command of the session. ``log`` is appended to, so that stages may share one."""

    name: str
    command: Sequence[str]
    seconds: float
    log: str
    environment: dict[str, str] = field(default_factory=dict)
    needs: str = ""  # a program without which the stage is left out
    status: str = "not reached"
    took: float = 0.0
    last_line: str = ""


def run_stage(stage: Stage, folder: Path, cwd: Path, seconds: float) -> None:
    """Runs a stage for so long at most and fills in what came of it."""
    started = time.monotonic()
    path = folder / stage.log
    with path.open("a") as log:
        log.write(f"==== {stage.name}: {' '.join(stage.command)}\n")
        log.flush()
        if stage.needs and shutil.which(stage.needs) is None:
            stage.status = f"left out: {stage.needs} is not installed"
            log.write(stage.status + "\n")
            return
        process = subprocess.Popen(
            stage.command,
            cwd=cwd,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **stage.environment, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # so that its children can be ended with it
        )
        try:
            code = process.wait(timeout=seconds)
            stage.status = "passed" if code == 0 else f"failed with exit status {code}"
        except subprocess.TimeoutExpired:
            stage.status = f"stopped after {seconds:.0f} s"
        except BaseException:
            stage.status = "interrupted"
            raise
        finally:
            end(process)
            stage.took = time.monotonic() - started
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines()]
    stage.last_line = next((line for line in reversed(lines) if line), "")[:160]


def end(process: subprocess.Popen) -> None:
    """The process and what it started, first politely."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=3)
            return


def run_session(
    stages: Sequence[Stage], folder: Path, cwd: Path, budget: float, report: Callable[[], None]
) -> None:
    """All stages in order, within the budget of seconds; ``report`` after every one."""
    deadline = time.monotonic() + budget
    for k, stage in enumerate(stages):
        later = LEAST_SECONDS * (len(stages) - k - 1)
        seconds = min(stage.seconds, deadline - time.monotonic() - later)
        if seconds < 1:
            stage.status = "left out: no time"
        else:
            print(f"{stage.name} (at most {seconds:.0f} s) ...", flush=True)
            try:
                run_stage(stage, folder, cwd, seconds)
            finally:
                report()
        print(f"    {stage.status} ({stage.took:.0f} s) {stage.last_line}", flush=True)
    report()


# ---- what this machine is ----------------------------------------------------------------------


def capability() -> str | None:
    """The compute capability of the GPU, such as "9.0", or None."""
    import torch

    if not torch.cuda.is_available():
        return None
    return ".".join(map(str, torch.cuda.get_device_capability()))


def output_of(*command: str) -> str:
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except OSError as error:
        return str(error)
    return (run.stdout or run.stderr).strip()


def machine_lines() -> list[str]:
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else NO_GPU
    versions = {
        name: getattr(importlib.import_module(name), "__version__", "?")
        for name in ("torch", "triton", "numpy", "pytest")
        if importlib.util.find_spec(name)
    }
    driver = output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return [
        f"* device: {gpu}",
        f"* driver: {driver if gpu != NO_GPU else NO_GPU}",
        f"* python {platform.python_version()}, "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + f", CUDA {torch.version.cuda}",
        f"* {os.cpu_count()} processors, {platform.platform()}",
        f"* revision: {output_of('git', '-C', str(REPOSITORY), 'describe', '--always', '--dirty')}",
    ]


# ---- the session -------------------------------------------------------------------------------


def copy_sources(target: Path) -> None:
    """The checkout's sources, so that nothing that is built here gets in the way of another
    build; what an earlier session compiled there is used again."""
    target.mkdir(parents=True, exist_ok=True)
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "_build.json", "results")
    for name in (*COPIED, *COPIED_TOO):
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=ignored, dirs_exist_ok=True)
        else:
            shutil.copy2(source, target)


def stages_for(gpu: str | None, folder: Path) -> list[Stage]:
    """In order of importance, the build first."""
    python = sys.executable
    here = {"PYTHONPATH": ".", "GANLOSS_FAST_BUILD": "auto"}
    pytest = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    parallel = ["-n", "8"] if gpu and importlib.util.find_spec("xdist") else []
    dry = [] if gpu else ["--dry-run"]
    sanitize = ["compute-sanitizer", "--error-exitcode", "1", "--tool"]
    profiled = [python, "-m", "benchmarks.gpu_kernels"]
    ncu = ["ncu", "--csv", "--page", "raw", "--clock-control", "none", "--metrics"]
    architecture = {"TORCH_CUDA_ARCH_LIST": gpu or "9.0", "MAX_JOBS": str(os.cpu_count())}
    tools = [
        Stage("memcheck", [*sanitize, "memcheck", *pytest, "-m", "gpu", "-k", SANITIZED], 60, ""),
        Stage("racecheck", [*sanitize, "racecheck", *pytest, "-m", "gpu", "-k", SANITIZED], 60, ""),
        Stage("bandwidth (ncu)", [*ncu, ",".join(METRICS), *profiled], 45, ""),
    ]
    for stage in tools:
        stage.log, stage.needs = "tools.log", stage.command[0]
        stage.environment = {**here, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        if not gpu:
            stage.command = [stage.command[0], "--version"]
    build = [python, "setup.py", "build_ext", "--inplace"]
    to_ops = ["--output", str(folder), "--seconds", "75" if gpu else "20"]
    to_steps = ["--output", str(folder / "steps.csv"), "--seconds", "50"]
    return [
        # A machine with a GPU has many processors.
        Stage("build", build, 300 if gpu else 1200, "build.log", {**here, **architecture}),
        Stage("what was built", [python, "-m", "ganloss_fast"], 60, "build.log", here),
        Stage(
            "GPU tests",
            [*pytest, *parallel, "-m", "gpu", "-k", "not 2_to_the_31"],
            100,
            "tests.log",
            here,
        ),
        *(
            Stage(
                f"op tests, {backend}",
                [
                    *(*pytest, *parallel, *([] if gpu else ["--co"])),
                    *(f"--on-gpu={backend}", "-m", "every_implementation"),
                ],
                100,
                "tests.log",
                here,
            )
            for backend in ("native", "triton")
        ),
        Stage(
            "benchmark",
            [python, "-m", "benchmarks.gpu", *dry, "--no-plots", *to_ops],
            110,
            "benchmark.log",
            here,
        ),
        Stage(
            "training steps",
            [python, "-m", "benchmarks.gpu_steps", *dry, *to_steps],
            80,
            "benchmark.log",
            here,
        ),
        *tools,
        Stage(
            "largest tensors",
            [*pytest, "-m", "gpu", "-k", "2_to_the_31"],
            60,
            "tests.log",
            here,
        ),
    ]


def table(path: Path, columns: Sequence[str], most: int) -> list[str]:
    """The first rows of a CSV file as Markdown."""
    if not path.exists():
        return ["Nothing was measured."]
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(row[name] for name in columns) + " |" for row in rows[:most]]
    if len(rows) > most:
        lines.append(f"\n{len(rows) - most} more rows in {path.name}.")
    return lines


def summary(stages: Sequence[Stage], folder: Path, facts: Sequence[str]) -> str:
    head = ["# GPU session", "", *facts, "", "| stage | result | seconds | last line |"]
    head.append("|---|---|---|---|")
    for stage in stages:
        last = stage.last_line.replace("|", "/")
        head.append(f"| {stage.name} | {stage.status} | {stage.took:.0f} | {last} |")
    timings = ("op", "direction", "size", "dtype", "backend", "mode", "p50_us", "GB_per_s")
    steps = ("critic", "samples", "step", "p50_us", "times_faster", "peak_MB")
    head += ["", "## Ops", "", *table(folder / "gpu.csv", timings, 400)]
    head += ["", "## Training steps", "", *table(folder / "steps.csv", steps, 40)]
    return "\n".join(head) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for logs and results")
    parser.add_argument("--seconds", type=float, help="for the whole session: 530 with a GPU")
    arguments = parser.parse_args()
    # As Ctrl-C: the stage that runs is ended and the summary written.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))

    folder = arguments.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("build.log", "tests.log", "benchmark.log", "tools.log"):  # appended to
        (folder / name).unlink(missing_ok=True)
    gpu = capability()
    facts = machine_lines()
    print("\n".join(facts), flush=True)
    tree = REPOSITORY / "build" / f"gpu-{sys.implementation.cache_tag}"
    copy_sources(tree)
    stages = stages_for(gpu, folder)

    def report() -> None:
        (folder / "summary.md").write_text(summary(stages, folder, facts))

    try:
        seconds = arguments.seconds or (530.0 if gpu else 1800.0)
        run_session(stages, folder, tree, seconds, report)
    except KeyboardInterrupt:
        report()
        sys.exit(130)
    if not gpu:
        print(f"{NO_GPU}: every stage went as far as it goes without one")
    failed = [s.name for s in stages if not s.status.startswith(("passed", "left out: "))]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; see {folder / 'summary.md'}")


if __name__ == "__main__":
    main()
