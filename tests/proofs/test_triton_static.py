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

from ganloss_fast.ops import terms
from ganloss_fast.ops.triton import launchers
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

COUNT = 1_000_003  # prime: not a multiple of 16, nor of anything
DOUBLE_ARITHMETIC = r"D(ADD|MUL|FMA|SETP|MNMX)|MUFU\.\w+64H"
AMD_DOUBLE_ARITHMETIC = r"v_(add|mul|fma|div\w*|sqrt|rcp)_f64"


# ---- the calls of the budget -------------------------------------------------------------------


def segment(dtype, operands: str, code: int = 0) -> tuple:
    """The arguments of one segment: a, and of b and the weights what `operands` names."""
    a = torch.empty(COUNT, dtype=dtype)
    b = {"pair": a, "scalar": a.new_empty(())}
    others = [tensor for name, tensor in b.items() if name in operands]
    weights = [a] if "weight" in operands else []
    return [a], others, weights, [len(others) + 2 * len(weights)], [code], [1.0, 0.5], [2.0]


def joined(segments) -> list[list]:
    """The arguments of a list of segments, each given by its own."""
    return [[x for one in segments for x in one[field]] for field in range(7)]


def accumulator(dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def loss_of_list(dtype, operands, size: int):
    return launchers.multi_tensor_loss(*joined([segment(dtype, operands)] * size), False)


def gradient_of_list(dtype, operands, size: int):
    """Of the second of each pair, as where the other is data; of a, where there is no pair."""
    scalar = torch.empty((), dtype=accumulator(dtype))
    wanted = range(size, 2 * size) if operands == "pair" else range(size)
    lists = joined([segment(dtype, operands)] * size)
    return launchers.multi_tensor_loss_backward(scalar, None, *lists, list(wanted))


def gradient(dtype, operands, code=0):
    scalar = torch.empty((), dtype=accumulator(dtype))
    wanted = [0] if operands == "a" else [0, 1]
    return launchers.multi_tensor_loss_backward(
        scalar, None, *segment(dtype, operands, code), wanted
    )


def second_order(dtype, operands, code=0):
    a, b, *rest = segment(dtype, operands, code)
    scalar = torch.empty((), dtype=accumulator(dtype))
    return launchers.multi_tensor_loss_double_backward(
        [*a, *b], scalar, None, a, b, *rest, [0, 1], [0, 1]
    )


def penalty(dtype, shape, order: int):
    g, norms = torch.empty(shape, dtype=dtype), torch.empty(shape[0], dtype=accumulator(dtype))
    scalar, penalised = torch.empty((), dtype=accumulator(dtype)), (0, 1.0, 10.0)
    if order == 0:
        return launchers.norm_penalty(g, *penalised)
    if order == 1:
        return launchers.norm_penalty_backward(scalar, g, norms, *penalised)
    return launchers.norm_penalty_double_backward(g, scalar, g, norms, *penalised)


def interpolate(dtype, alpha_shape):
    batch = torch.empty((3, COUNT), dtype=dtype)
    return launchers.interpolate(batch, batch, torch.empty(alpha_shape, dtype=dtype))


def perturb(dtype):
    return launchers.perturb(torch.empty(COUNT, dtype=dtype), 0.5, torch.tensor(7))


LONG, SHORT = (3, COUNT), (1000, 33)
CALLS = {
    "loss": lambda dtype: launchers.multi_tensor_loss(*segment(dtype, "a"), False),
    "loss, with statistics": lambda dtype: launchers.multi_tensor_loss(*segment(dtype, "a"), True),
    "loss, pair and weights": lambda dtype: launchers.multi_tensor_loss(
        *segment(dtype, "pair weight"), False
    ),
    "gradient": lambda dtype: gradient(dtype, "a"),
    "gradient, pair": lambda dtype: gradient(dtype, "pair"),
    "gradient, scalar b": lambda dtype: gradient(dtype, "scalar"),
    "second order, pair": lambda dtype: second_order(dtype, "pair"),
    "loss of a list of 8": lambda dtype: loss_of_list(dtype, "a", 8),
    "gradient of a list of 8": lambda dtype: gradient_of_list(dtype, "a", 8),
    "loss of a list of 54 pairs": lambda dtype: loss_of_list(dtype, "pair", 54),
    "gradient of a list of 54 pairs": lambda dtype: gradient_of_list(dtype, "pair", 54),
    "penalty": lambda dtype: penalty(dtype, LONG, 0),
    "penalty, gradient": lambda dtype: penalty(dtype, LONG, 1),
    "penalty, second order": lambda dtype: penalty(dtype, LONG, 2),
    "interpolate, one alpha for each sample": lambda dtype: interpolate(dtype, LONG[:1]),
    "interpolate, one alpha for each element": lambda dtype: interpolate(dtype, LONG),
    "perturb": perturb,
    "penalty of short samples": lambda dtype: penalty(dtype, SHORT, 0),
    "penalty of short samples, gradient": lambda dtype: penalty(dtype, SHORT, 1),
}


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


# ---- launches ----------------------------------------------------------------------------------


def launch_count(call) -> int:
    return len(triton_compile.launches_of(call, "sm_90"))


@pytest.mark.parametrize(("operands", "size"), [("a", 8), ("pair", 54)])
def test_a_list_is_one_launch_forward_and_one_backward(operands, size):
    """The outputs of HiFi-GAN's discriminators; the maps of its feature matching."""
    assert launch_count(lambda: loss_of_list(torch.float32, operands, size)) == 1
    assert launch_count(lambda: gradient_of_list(torch.float32, operands, size)) == 1


def test_a_list_of_all_kinds_is_one_launch_of_every_order():
    """Every term, every dtype, all that may stand beside a."""
    segments = [
        segment(torch.float16, "a", 0),
        segment(torch.bfloat16, "pair", 1),
        segment(torch.float32, "scalar", 2),
        segment(torch.float64, "weight", 3),
        segment(torch.float32, "pair weight", 4),
    ]
    lists = joined(segments)
    a, b = lists[:2]
    scalar = torch.empty((), dtype=torch.float64)
    wanted = list(range(len(a) + len(b)))
    directions = [*a, *b]
    assert launch_count(lambda: launchers.multi_tensor_loss(*lists, True)) == 1
    assert (
        launch_count(lambda: launchers.multi_tensor_loss_backward(scalar, None, *lists, wanted))
        == 1
    )
    assert (
        launch_count(
            lambda: launchers.multi_tensor_loss_double_backward(
                directions, scalar, None, *lists, wanted, wanted
            )
        )
        == 1
    )


def test_a_long_list_is_cut_into_equal_launches():
    launches = triton_compile.launches_of(lambda: loss_of_list(torch.float32, "a", 108), "sm_90")
    assert len(launches) == 2
    assert launches[0].kernel is launches[1].kernel


def test_lengths_and_label_values_do_not_compile_anew():
    """One kernel for every length of 32 bits, whatever its divisors, and for every label."""
    kernels = set()
    for count, label in ((COUNT, 1.0), (1 << 20, 0.9), (17, 0.0), (1024, -1.0)):
        a = torch.empty(count)
        (launch,) = triton_compile.launches_of(
            lambda a=a, label=label: launchers.multi_tensor_loss_backward(
                a.new_empty(()), None, [a], [], [], [0], [2], [label, 0.0], [label], [0]
            ),
            "sm_90",
        )
        kernels.add(id(launch.kernel))
    assert len(kernels) == 1


@pytest.mark.parametrize("past", [0, 1])
def test_a_misaligned_tensor_is_read_by_neighbouring_threads(past):
    """Without wide loads, which would fault; and not 16 bytes apart, which wastes the sectors."""
    a = torch.empty(COUNT + past)[past:]
    one = a.new_empty(())
    of_one = [a], [], [], [0], [0], [1.0, 0.0], [1.0]
    for call in (
        lambda: launchers.multi_tensor_loss(*of_one, False),
        lambda: launchers.multi_tensor_loss_backward(one, None, *of_one, [0]),
    ):
        (launch,) = triton_compile.launches_of(call, "sm_90")
        elements = re.findall(r"sizePerThread = \[(\d+)\]", launch.kernel.asm["ttgir"])
        assert set(elements) == ({"1"} if past else {"4"})
        assert triton_compile.read(launch.kernel).count(r"LDG\..*128") == (0 if past else 2)


def test_a_misaligned_segment_leaves_the_others_their_wide_loads():
    a, narrow = torch.empty(COUNT), torch.empty(COUNT + 1)[1:]
    lists = [a, narrow, a], [], [], [0] * 3, [0] * 3, [1.0, 0.0] * 3, [1.0] * 3
    (launch,) = triton_compile.launches_of(
        lambda: launchers.multi_tensor_loss(*lists, False), "sm_90"
    )
    assert triton_compile.read(launch.kernel).count(r"LDG\..*128") == 2


# ---- the table of terms ------------------------------------------------------------------------


def test_every_term_has_its_triton_function():
    assert tuple(TERM_FUNCTIONS) == terms.TERM_NAMES
