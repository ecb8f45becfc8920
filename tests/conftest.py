"""Fixtures of the whole suite: which implementation runs, and on how many threads."""

from __future__ import annotations

import pytest
import torch

from ganloss_fast import backends

try:
    from ganloss_fast import _C
except ImportError:
    _C = None

ISAS = list(_C.available_cpu_isas()) if backends.HAS_NATIVE else []
IMPLEMENTATIONS = ["reference", *(f"native-{isa}" for isa in ISAS)]

needs_native = pytest.mark.skipif(
    not backends.HAS_NATIVE, reason=f"no native kernels: {backends.NATIVE_MISSING}"
)


def pytest_collection_modifyitems(items):
    """``native`` in a test's fixtures means: skip, with the reason, where there is none."""
    for item in items:
        if {"native", "isa"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(needs_native)


@pytest.fixture(autouse=True)
def repeatable():
    """Every test draws the same numbers, on one thread: waking a second one costs more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def native():
    """The native kernels, with the instruction set that this machine prefers."""
    with backends.use_backend("native"):
        yield


@pytest.fixture(params=ISAS or ["none"])
def isa(request):
    """The native kernels, once for every instruction set of this machine."""
    before = _C.cpu_isa()
    _C.select_cpu_isa(request.param)
    with backends.use_backend("native"):
        yield request.param
    _C.select_cpu_isa(before)


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request):
    """The reference, and the native kernels once for every instruction set."""
    backend, _, isa = request.param.partition("-")
    before = _C.cpu_isa() if isa else None
    if isa:
        _C.select_cpu_isa(isa)
    with backends.use_backend(backend):
        yield request.param
    if isa:
        _C.select_cpu_isa(before)
