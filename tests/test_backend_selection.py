"""Who serves a CUDA tensor in every kind of installation, and what is said of the others.

backends.py is loaded anew over the facts of an installation, so all that it derives from them is
its own; no GPU, no compiler and no Triton is needed.
"""

from __future__ import annotations

import importlib
import shutil
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

import ganloss_fast
from ganloss_fast import backends, ops
from ganloss_fast.ops import dispatch, terms
from ganloss_fast.ops.terms import Segment

EXTENSIONS = {
    "with CUDA": {"built": "cuda", "reasons": {}},
    "CPU only": {"built": "cpu", "reasons": {"cuda": "nvcc was not found"}},
    "none": {"built": "none", "reasons": {"native": "no C++ compiler (g++) was found"}},
}
NO_NATIVE = {"with CUDA": None, "CPU only": "nvcc was not found", "none": "no C++ compiler (g++)"}
NO_TRITON = {
    "works": None,
    "missing": "it is not installed (run: pip install triton)",
    "without a C compiler": "it does not start: Failed to find C compiler",
    "old GPU": "it needs compute capability 8.0, this GPU has 7.5",
    "no GPU": "torch finds no GPU",
}

# Of the first that serves: native kernels, the op that Triton is registered for, Triton below
# Python autograd, plain PyTorch.
SERVES = {
    ("with CUDA", "works"): "native",
    ("CPU only", "works"): "triton op",
    ("none", "works"): "triton function",
}


def serving(extension: str, triton: str) -> str:
    without = "native" if extension == "with CUDA" else "reference"
    return SERVES.get((extension, triton), without)


class Driver:
    """What the selection asks of Triton's: its launcher needs a C compiler."""

    def __init__(self, triton: str) -> None:
        self.triton = triton

    @property
    def active(self):
        return self

    def get_current_target(self):
        if self.triton == "without a C compiler":
            raise RuntimeError("Failed to find C compiler")


@pytest.fixture
def install(monkeypatch, tmp_path):
    """Loads backends.py as it is where this extension and this Triton are."""

    def load(extension: str, triton: str) -> ModuleType:
        shutil.copy(backends.__file__, tmp_path / "backends.py")
        facts = EXTENSIONS[extension]
        monkeypatch.setattr(ganloss_fast.extension, "FACTS", facts)
        monkeypatch.setattr(ganloss_fast.extension, "MISSING", facts["reasons"].get("native"))
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        find = importlib.util.find_spec
        spec = importlib.util.spec_from_file_location("installed", tmp_path / "backends.py")
        assert spec is not None
        assert spec.loader is not None
        found = None if triton == "missing" else spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: found if name == "triton" else find(name)
        )
        monkeypatch.setitem(sys.modules, "triton.runtime", SimpleNamespace(driver=Driver(triton)))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: triton != "no GPU")
        capability = (7, 5) if triton == "old GPU" else (9, 0)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        monkeypatch.setattr(torch.version, "hip", None)
        installed = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(installed)
        return installed

    return load


class on_cuda:
    """What the selection looks at of a CUDA tensor."""

    is_cpu, is_cuda, device = False, True, torch.device("cuda", 0)
    __torch_dispatch__ = torch.Tensor.__torch_dispatch__


def who_computes(monkeypatch, installed: ModuleType) -> str:
    """Where a loss of a CUDA tensor ends up under these backends."""

    def note(name):
        return lambda *_: (name, None, None)

    op = ops.OPS[0]._replace(registered=note("triton op"), function=note("triton function"))
    loss = importlib.import_module("ganloss_fast.ops.multi_tensor_loss")  # ops holds its function
    for module in (loss, dispatch):
        monkeypatch.setattr(module, "backends", installed)
    monkeypatch.setattr(loss, "MULTI_TENSOR_LOSS", op)
    monkeypatch.setattr(loss, "_multi_tensor_loss_eager", note("native"), raising=False)
    monkeypatch.setattr(
        loss, "multi_tensor_loss_reference", lambda *_: SimpleNamespace(total="reference")
    )
    monkeypatch.setattr(
        dispatch, "is_plain_eager", lambda tensor: not torch.compiler.is_compiling()
    )
    monkeypatch.setattr(dispatch, "triton_launchers", lambda: None)
    return ops.multi_tensor_loss([Segment(on_cuda(), terms.LINEAR)]).total


@pytest.mark.parametrize("triton", NO_TRITON)
@pytest.mark.parametrize("extension", EXTENSIONS)
def test_a_cuda_tensor_is_served_by_the_first_that_can(monkeypatch, install, extension, triton):
    assert who_computes(monkeypatch, install(extension, triton)) == serving(extension, triton)


@pytest.mark.parametrize("triton", ["works", "missing"])
@pytest.mark.parametrize("extension", EXTENSIONS)
def test_triton_is_registered_where_the_ops_have_no_cuda_kernels(install, extension, triton):
    registers = extension == "CPU only" and triton == "works"
    assert registers == install(extension, triton).REGISTERS_TRITON


@pytest.mark.parametrize("triton", NO_TRITON)
@pytest.mark.parametrize("extension", EXTENSIONS)
def test_what_cannot_serve_says_why_and_is_refused_as_a_choice(install, extension, triton):
    installed = install(extension, triton)
    for backend, reason, is_served in (
        ("native", NO_NATIVE[extension], installed.is_native),
        ("triton", NO_TRITON[triton], installed.is_triton),
    ):
        said = installed.why_not(backend, "cuda")
        if reason is None:
            assert said is None
            with installed.use_backend(backend):
                assert is_served(on_cuda())
        else:
            assert reason in said
            with pytest.raises(RuntimeError) as refusal, installed.use_backend(backend):
                is_served(on_cuda())
            assert said in str(refusal.value)


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_cpu_tensors_never_take_triton_unasked(install, extension):
    installed, tensor = install(extension, "works"), torch.zeros(2)
    assert installed.is_native(tensor) == (extension != "none")
    assert not installed.is_triton(tensor)
    with installed.use_backend("triton"), pytest.raises(RuntimeError, match="cannot serve cpu"):
        installed.is_triton(tensor)


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_the_choice_of_the_reference_keeps_everything_else_out(monkeypatch, install, extension):
    installed = install(extension, "works")
    with installed.use_backend("reference"):
        assert who_computes(monkeypatch, installed) == "reference"


@pytest.mark.parametrize("extension", ["CPU only", "none"])
def test_under_the_compiler_the_reference_stands_in_for_triton(monkeypatch, install, extension):
    """Inductor makes one kernel of it and of what is around."""
    installed = install(extension, "works")
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert who_computes(monkeypatch, installed) == "reference"
