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

OF_TABLE = "13.0"  # another release unrolls otherwise


def nvcc_release() -> str | None:
    if not NVCC or not NVCC.exists():
        return None
    version = subprocess.run([NVCC, "--version"], capture_output=True, text=True, check=True)
    return re.search(r"release (\S+),", version.stdout)[1]


pytestmark = [
    pytest.mark.gpu_proof,
    pytest.mark.skipif(nvcc_release() != OF_TABLE, reason=f"no nvcc of CUDA {OF_TABLE}"),
    pytest.mark.skipif(find_cuobjdump() is None, reason="no cuobjdump (toolkit, wheel or Triton)"),
    pytest.mark.timeout(900),
]


def cell(counts: list[int]) -> str:
    """One number where all architectures agree."""
    return " ".join(map(str, counts if len(set(counts)) > 1 else counts[:1]))


def rows_of(kernels: list[Kernel]) -> set[str]:
    """The rows of the table that these kernels make, in the order of ARCHITECTURES."""
    of_name: dict[str, list[Kernel]] = {}
    for kernel in sorted(kernels, key=lambda k: int(k.architecture.removeprefix("sm_"))):
        of_name.setdefault(kernel.name, []).append(kernel)
    counted = [("LDG", "128"), ("STG", "128"), ("MEMBAR", "")]
    return {
        " | ".join([f"| {name}", *(cell([k.count(*c) for k in group]) for c in counted)]) + " |"
        for name, group in of_name.items()
    }


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


def test_words_of_16_bytes_and_fences_are_those_of_the_table(compiled):
    """For every kernel by its full name: no row is missing, none is left over."""
    assert {kernel.architecture for kernel in compiled} == {f"sm_{a}" for a in ARCHITECTURES}
    table = {line for line in BUDGET.read_text().splitlines() if re.match(r"\| \w+_kernel<", line)}
    rows = rows_of(compiled)
    assert rows == table, "\n".join(["compiled, and not in the table:", *sorted(rows - table)])


def test_what_adds_across_blocks_has_a_ticket_with_both_orders(compiled):
    """Release: a MEMBAR before the atomic. Acquire: behind it a CCTL, which drops what the
    first-level cache holds. And nothing more, which a fence of its own would be."""
    for kernel in compiled:
        ordered = [name.split(".")[0] for name, _ in kernel.code]
        ordered = [name for name in ordered if name in ("MEMBAR", "ATOM", "ATOMG", "RED", "CCTL")]
        takes_none = "map" in kernel.name or "perturb" in kernel.name
        allowed = (
            [[]] if takes_none else [["MEMBAR", atomic, "CCTL"] for atomic in ("ATOM", "ATOMG")]
        )
        assert ordered in allowed, (kernel.architecture, kernel.name)


def test_halves_are_all_requested_before_one_is_converted(compiled):
    """Element by element too: eight of an operand, sixteen of two, where words do not serve."""
    whole_tiles = ("multi_tensor_loss", "wide_row")
    kernels = [k for k in compiled if k.name.startswith(whole_tiles) and k.compute_type == "float"]
    assert kernels
    for kernel in kernels:
        one_operand = kernel.name == "wide_row_map_kernel<float, PenaltyGradient>"
        at_once = kernel.requested_at_once("LDG.E.U16")
        assert at_once >= (8 if one_operand else 16), (kernel.architecture, kernel.name, at_once)


def test_registers(compiled):
    most = {"float": 64, "double": 128}
    over = [k for k in compiled if k.registers > most[k.compute_type]]
    assert not over, [(k.architecture, k.name, k.registers) for k in over]


def test_no_stack_and_no_local_memory(compiled):
    assert not [k for k in compiled if k.stack_bytes or k.count("LDL") or k.count("STL")]


def test_no_double_precision_arithmetic_in_float_kernels(compiled):
    floats = [k for k in compiled if k.compute_type == "float"]
    assert floats
    assert not [(k.architecture, k.name) for k in floats if k.double_arithmetic()]
    # The count sees what it counts.
    doubles = [k for k in compiled if k.name.startswith("multi_tensor_loss_kernel<double")]
    assert all(k.double_arithmetic() > 0 for k in doubles)
    assert all(k.count("MUFU", "RCP64H") > 0 for k in doubles)


def test_noise_takes_no_approximate_function(compiled):
    noise = [k for k in compiled if k.name.startswith("perturb")]
    assert noise
    assert not [k for k in noise for f in ("LG2", "EX2", "SIN", "COS") if k.count("MUFU", f)]
    # The count sees what it counts: the exponential of softplus.
    losses = [k for k in compiled if k.name.startswith("multi_tensor_loss_kernel<float")]
    assert all(k.count("MUFU", "EX2") > 0 for k in losses)


def test_no_atomic_touches_a_float(compiled):
    """The ticket is the only atomic: sums are in a fixed order."""
    for kernel in compiled:
        atomics = [n for n in kernel.instructions if n.split(".")[0] in ("ATOM", "ATOMG", "RED")]
        assert not [n for n in atomics if ".F" in n], (kernel.name, atomics)
