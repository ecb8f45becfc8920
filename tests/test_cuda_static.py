"""The machine code of the CUDA kernels against docs/GPU_BUDGET.md. Needs nvcc, but no GPU."""

from __future__ import annotations

import re
import subprocess

import pytest
from harness import build
from sass import Kernel, find_cuobjdump, kernels_of

ARCHITECTURES = ("80", "90", "100")
NVCC = build.cuda_root() and build.cuda_root() / "bin" / "nvcc"
BUDGET = build.ROOT / "docs" / "GPU_BUDGET.md"

pytestmark = [
    pytest.mark.skipif(not NVCC or not NVCC.exists(), reason="no nvcc"),
    pytest.mark.skipif(find_cuobjdump() is None, reason="no cuobjdump (toolkit, wheel or Triton)"),
    pytest.mark.timeout(900),
]


def budget() -> dict[str, tuple[int, int, int]]:
    """kernel family -> most registers, least 16-byte loads, least 16-byte stores."""
    row = re.compile(r"^\| (\w+_kernel<\w+>) \| (\d+) \| (\d+) \| (\d+) \|$", re.MULTILINE)
    return {m[1]: (int(m[2]), int(m[3]), int(m[4])) for m in row.finditer(BUDGET.read_text())}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> list[Kernel]:
    """Every kernel for every architecture; a spill is an error of the assembler already."""
    folder = tmp_path_factory.mktemp("sass")
    code = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES]
    compilers = []
    for source in build.KERNEL_SOURCES:
        target = folder / (source.rpartition("/")[2] + ".o")
        command = [NVCC, "-std=c++20", "-O3", *code, "-c", build.ROOT / source, "-o", target]
        command += ["-Xptxas=-warn-spills,-warn-lmem-usage,-Werror"]
        compilers.append((target, subprocess.Popen(command, stderr=subprocess.PIPE, text=True)))
    kernels = []
    for target, compiler in compilers:
        _, errors = compiler.communicate()
        assert compiler.returncode == 0, errors
        kernels += kernels_of(target)
    return kernels


def test_the_budget_names_every_kernel_and_no_other(compiled):
    assert {kernel.family for kernel in compiled} == set(budget())
    assert {kernel.architecture for kernel in compiled} == {f"sm_{a}" for a in ARCHITECTURES}


def test_registers(compiled):
    over = [k for k in compiled if k.registers > budget()[k.family][0]]
    assert not over, [(k.architecture, k.name, k.registers) for k in over]


def test_no_stack_and_no_local_memory(compiled):
    assert not [k for k in compiled if k.stack_bytes or k.count("LDL") or k.count("STL")]


def test_no_double_precision_arithmetic_in_float_kernels(compiled):
    floats = [k for k in compiled if k.family.endswith("<float>")]
    assert floats
    assert not [(k.architecture, k.name) for k in floats if k.double_arithmetic()]
    # The count sees what it counts.
    doubles = [k for k in compiled if k.family == "multi_tensor_loss_kernel<double>"]
    assert all(k.double_arithmetic() > 0 for k in doubles)


def test_noise_takes_no_approximate_function(compiled):
    noise = [k for k in compiled if k.family.startswith("perturb")]
    assert noise
    assert not [k for k in noise for f in ("LG2", "EX2", "SIN", "COS") if k.count("MUFU", f)]
    # The count sees what it counts: the exponential of softplus.
    losses = [k for k in compiled if k.family == "multi_tensor_loss_kernel<float>"]
    assert all(k.count("MUFU", "EX2") > 0 for k in losses)


def test_words_of_16_bytes(compiled):
    for kernel in compiled:
        _, loads, stores = budget()[kernel.family]
        assert kernel.count("LDG", "128") >= loads, (kernel.architecture, kernel.name)
        assert kernel.count("STG", "128") >= stores, (kernel.architecture, kernel.name)


def test_no_atomic_touches_a_float(compiled):
    """The ticket is the only atomic: sums are in a fixed order."""
    for kernel in compiled:
        atomics = [n for n in kernel.instructions if n.split(".")[0] in ("ATOM", "ATOMG", "RED")]
        assert not [n for n in atomics if ".F" in n], (kernel.name, atomics)
