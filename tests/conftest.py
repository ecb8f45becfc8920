"""Fixtures of the whole suite: which implementation runs, and on how many threads."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import on_gpu
import pytest
import torch
import triton_guard

from ganloss_fast import backends

# For the critics, the benchmark and the demo, which are installed nowhere; at the end, so that an
# installed ganloss_fast is still the one that is tested.
sys.path.append(str(Path(__file__).resolve().parents[1]))

if backends.HAS_NATIVE:
    from ganloss_fast import _C
else:
    _C = None

ISAS = list(_C.available_cpu_isas()) if backends.HAS_NATIVE else []
IMPLEMENTATIONS = ["reference", *(f"native-{isa}" for isa in ISAS)]
if backends.TRITON_INTERPRETED:  # a process of its own: TRITON_INTERPRET=1 pytest -k triton
    IMPLEMENTATIONS = ["triton"]

needs_native = pytest.mark.skipif(
    not backends.HAS_NATIVE, reason=f"no native kernels: {backends.NATIVE_MISSING}"
)


def pytest_addoption(parser):
    parser.addoption(
        "--emulated-cuda",
        action="store_true",
        help="run the tests of the native implementation on the CUDA kernels, on the CPU",
    )
    parser.addoption(
        "--sanitizer",
        choices=("plain", "address"),
        default="plain",
        help="of the emulated CUDA kernels; its runtime must be loaded before Python",
    )
    parser.addoption(
        "--on-gpu",
        choices=on_gpu.BACKENDS,
        help="run the tests of the native implementation on the kernels of a backend, on the GPU",
    )
    parser.addoption(
        "--preferred-isa",
        action="store_true",
        help="of the native kernels, test the instruction set that this machine prefers alone",
    )
    parser.addoption(
        "--no-skips",
        action="store_true",
        help="a skipped test is a failure: where every tool is there, nothing may go unproven",
    )


def pytest_collection_modifyitems(config, items):
    """``native`` in a test's fixtures means: skip, with the reason, where there is none."""
    if config.getoption("--preferred-isa"):
        items[:] = [item for item in items if takes_preferred_isa(item)]
    backend = config.getoption("--on-gpu")
    if backend or config.getoption("--emulated-cuda"):
        items[:] = [item for item in items if runs_elsewhere(item)]
    reason = on_gpu.why_not(backend) if backend else None
    for item in items:
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))
        if {"native", "isa"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(needs_native)


def pytest_sessionfinish(session):
    if skips_forbidden(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config):
    for report in skips_forbidden(config):
        *_, reason = report.longrepr
        terminalreporter.write_line(f"--no-skips: {report.nodeid} did not run. {reason}", red=True)


def skips_forbidden(config):
    """The reports of what was skipped, if that is a failure."""
    if not config.getoption("--no-skips"):
        return []
    return config.pluginmanager.get_plugin("terminalreporter").stats.get("skipped", [])


def implementation_of(item):
    """The implementation that a test is for, of those that it is run with; None for a test that
    is run once."""
    chosen = item.callspec.params if hasattr(item, "callspec") else {}
    if "isa" in chosen:
        return f"native-{chosen['isa']}"
    return chosen.get("implementation")


def takes_preferred_isa(item):
    """Whether a test is for no instruction set, or for the last: the one that is preferred."""
    return implementation_of(item) in (None, "reference", IMPLEMENTATIONS[-1])


def runs_elsewhere(item):
    """Whether a test may take other kernels for the native ones; one for each instruction set."""
    if item.get_closest_marker("cpu_only"):
        return False
    implementation = implementation_of(item)
    if implementation is not None:
        return implementation == IMPLEMENTATIONS[-1]
    return "native" in getattr(item, "fixturenames", ())


@contextlib.contextmanager
def native_kernels(request):
    """The native backend: of the CPU, or what --emulated-cuda and --on-gpu put in its place."""
    with backends.use_backend("native"):
        if backend := request.config.getoption("--on-gpu"):
            place = on_gpu.OnDevice(on_gpu.KERNELS[backend])
        elif request.config.getoption("--emulated-cuda"):
            from harness import emulation

            place = emulation.emulated_cuda(request.config.getoption("--sanitizer"))
        else:
            yield
            return
        with place:
            yield
        is_about_kernels = not request.node.get_closest_marker("launches_nothing")
        assert place.launched or not is_about_kernels, "no kernel was launched"


@pytest.fixture(autouse=True)
def repeatable():
    """Every test draws the same numbers, on one thread: waking a second one costs more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def fresh_compiler():
    """Nothing compiled before: Dynamo remembers functions and gives up after a few shapes."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def native(request):
    """The native kernels, with the instruction set that this machine prefers."""
    with native_kernels(request):
        yield


@pytest.fixture(params=ISAS or ["none"])
def isa(request):
    """The native kernels, once for every instruction set of this machine."""
    before = _C.cpu_isa()
    _C.select_cpu_isa(request.param)
    with native_kernels(request):
        yield request.param
    _C.select_cpu_isa(before)


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request):
    """The reference, and the native kernels once for every instruction set."""
    backend, _, isa = request.param.partition("-")
    before = _C.cpu_isa() if isa else None
    if isa:
        _C.select_cpu_isa(isa)
    if backend == "triton" and (reason := triton_guard.why_unavailable()):
        pytest.skip(reason)
    guard = triton_guard.guarded() if backend == "triton" else contextlib.nullcontext()
    with native_kernels(request) if isa else backends.use_backend(backend), guard:
        yield request.param
    if isa:
        _C.select_cpu_isa(before)
