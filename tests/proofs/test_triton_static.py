"""What the Triton kernels compile to, on a machine without a GPU: held to docs/GPU_BUDGET.md.

And that the table of terms in Triton is complete.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

pytestmark = pytest.mark.gpu_proof

triton = pytest.importorskip("triton")

import triton.language as tl
import triton_compile
from triton_calls import CALLS, COUNT, gradient, perturb, second_order

from ganloss_fast.ops import terms
from ganloss_fast.ops.triton.terms import TERM_FUNCTIONS

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("TRITON_INTERPRET=1: nothing is compiled", allow_module_level=True)
if not triton.__version__.startswith(triton_compile.SUPPORTED):
    pytest.skip(
        f"the budget is for Triton {triton_compile.SUPPORTED}x, not {triton.__version__}",
        allow_module_level=True,
    )

CONVERSIONS = 3  # from float64: the scale and the two parameters of a term


class Row(NamedTuple):
    """What one launch of a call may cost."""

    kernel: str
    registers: int
    gfx942: int
    reads: int | None  # tensors of the length of the data; None: any
    writes: int | None


def read_budget() -> dict[str, list[Row]]:
    """By call: its launches, in order."""
    text = (Path(__file__).parents[2] / "docs" / "GPU_BUDGET.md").read_text()
    budget: dict[str, list[Row]] = {}
    for name, kernel, *numbers in re.findall(
        r"^\| (.+?) \| (\w+_kernel) \| (\d+) \| (\d+) \| (\d+|any) \| (\d+|any) \|$", text, re.M
    ):
        row = Row(kernel, *(None if n == "any" else int(n) for n in numbers))
        budget.setdefault(name, []).append(row)
    return budget


BUDGET = read_budget()

DOUBLE_ARITHMETIC = r"D(ADD|MUL|FMA|SETP|MNMX)|MUFU\.\w+64H"
AMD_DOUBLE_ARITHMETIC = r"v_(add|mul|fma|div\w*|sqrt|rcp)_f64"


# ---- the budget --------------------------------------------------------------------------------


def assert_no_spills(compiled: triton_compile.Compiled) -> None:
    assert compiled.spilled == 0
    assert compiled.count(r"LDL|STL|scratch_") == 0


def assert_single_precision(compiled: triton_compile.Compiled) -> None:
    assert compiled.count(DOUBLE_ARITHMETIC) == 0
    assert compiled.count(AMD_DOUBLE_ARITHMETIC) == 0
    assert compiled.count(r"F2F\.\w*64|v_cvt_f32_f64") <= CONVERSIONS


def accesses(dtype) -> int:
    """For each thread and tensor: a tile is 1024 elements, 128 threads take 16 bytes at a time."""
    return 1024 * dtype.itemsize // (128 * 16)


def compiled_launches(name, dtype, target) -> list[tuple[Row, triton_compile.Compiled]]:
    launches = triton_compile.launches_of(lambda: CALLS[name](dtype), target)
    assert [launch.name for launch in launches] == [row.kernel for row in BUDGET[name]]
    return [(row, triton_compile.read(x.kernel)) for row, x in zip(BUDGET[name], launches)]


def test_the_budget_names_the_calls_that_are_checked():
    assert set(BUDGET) == set(CALLS)


@pytest.mark.parametrize(
    ("target", "dtype"),
    [
        ("sm_80", torch.float32),
        ("sm_90", torch.float32),
        ("sm_90", torch.bfloat16),
        ("sm_90", torch.float16),
        ("sm_100", torch.bfloat16),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", CALLS)
def test_nvidia(name, target, dtype):
    for row, compiled in compiled_launches(name, dtype, target):
        assert_no_spills(compiled)
        assert_single_precision(compiled)
        assert compiled.registers <= row.registers
        if row.reads is not None:
            assert compiled.count(r"LDG\..*128") == accesses(dtype) * row.reads
            assert compiled.count(r"STG\..*128") == accesses(dtype) * row.writes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_amd(name, dtype):
    for row, compiled in compiled_launches(name, dtype, "gfx942"):
        assert_no_spills(compiled)
        assert_single_precision(compiled)
        assert compiled.registers <= row.gfx942
        if row.reads is not None:
            # Statistics are 16 bytes as well: a store more.
            loads, stores = (
                compiled.count(rf"(global|buffer)_{kind}_dwordx4") for kind in ("load", "store")
            )
            assert loads == accesses(dtype) * row.reads
            assert stores >= accesses(dtype) * row.writes


@pytest.mark.parametrize("name", terms.TERM_NAMES)
def test_every_term_keeps_the_budget(name):
    """Softplus, the heaviest, is what the budget is for; none of the others may exceed it."""
    code = terms.TERM_NAMES.index(name)
    for call, budget in (
        (lambda: gradient(torch.float32, "pair", code), BUDGET["gradient, pair"]),
        (lambda: second_order(torch.float32, "pair", code), BUDGET["second order, pair"]),
    ):
        (launch,) = triton_compile.launches_of(call, "sm_90")
        compiled = triton_compile.read(launch.kernel)
        assert_no_spills(compiled)
        assert_single_precision(compiled)
        assert compiled.registers <= budget[0].registers


@pytest.mark.parametrize(
    "name", ["loss, with statistics", "second order, pair", "penalty", "perturb"]
)
@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
def test_float64_compiles_without_spills(name, target):
    for launch in triton_compile.launches_of(lambda: CALLS[name](torch.float64), target):
        assert_no_spills(triton_compile.read(launch.kernel))


def test_the_double_precision_check_can_fail():
    (launch,) = triton_compile.launches_of(lambda: CALLS["loss"](torch.float64), "sm_90")
    with pytest.raises(AssertionError):
        assert_single_precision(triton_compile.read(launch.kernel))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_noise_takes_no_approximate_function(dtype):
    (launch,) = triton_compile.launches_of(lambda: perturb(dtype), "sm_90")
    assert triton_compile.read(launch.kernel).count(r"MUFU\.(LG2|SIN|COS|EX2)") == 0


@triton.jit
def logarithm(x, out, BLOCK: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    tl.store(out + offsets, tl.log(tl.load(x + offsets)) + tl.exp(tl.load(x + offsets)))


def test_the_check_of_approximate_functions_can_fail():
    """tl.exp is the hardware's, tl.log is not."""
    x = torch.empty(128)
    (launch,) = triton_compile.launches_of(lambda: logarithm[(1,)](x, x, BLOCK=128), "sm_90")
    compiled = triton_compile.read(launch.kernel)
    assert compiled.count(r"MUFU\.EX2") > 0
    assert compiled.count(r"MUFU\.LG2") == 0


@triton.jit
def masked_copy(x, out, count, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + offsets, tl.load(x + offsets, mask=offsets < count), mask=offsets < count)


def test_a_mask_on_every_tile_would_cost_the_wide_loads():
    """Why the kernels split body and tail: the same copy, masked, for an odd and an even count."""
    x = torch.empty(COUNT)

    def wide_loads(count: int) -> int:
        (launch,) = triton_compile.launches_of(
            lambda: masked_copy[(1,)](x, x, count, BLOCK=1024), "sm_90"
        )
        return triton_compile.read(launch.kernel).count(r"LDG\..*128")

    assert wide_loads(COUNT) == 0
    assert wide_loads(COUNT // 16 * 16) == 2


@pytest.mark.parametrize("name", ["loss", "gradient, scalar b", "second order, pair", "penalty"])
def test_the_ticket_acquires_and_releases_at_gpu_scope(name):
    (launch,) = triton_compile.launches_of(lambda: CALLS[name](torch.float32), "sm_90")
    compiled = triton_compile.read(launch.kernel)
    assert re.findall(r"\batom\.\S+", compiled.text) == ["atom.global.gpu.acq_rel.add.u32"]
    # The acquire invalidates the first-level cache, where stale partials could be.
    assert compiled.count(r"MEMBAR\..*GPU") == compiled.count(r"CCTL\.IVALL") == 1


@pytest.mark.parametrize("name", CALLS)
def test_no_sum_uses_a_float_atomic(name):
    for launch in triton_compile.launches_of(lambda: CALLS[name](torch.float32), "sm_90"):
        compiled = triton_compile.read(launch.kernel)
        assert compiled.count(r"RED|ATOM\w*\..*F(32|64|P)") == 0


# ---- the table of terms ------------------------------------------------------------------------


def test_every_term_has_its_triton_function():
    assert tuple(TERM_FUNCTIONS) == terms.TERM_NAMES
