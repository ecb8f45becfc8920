"""The CUDA kernels, run on the CPU: right, free of races, within bounds, and deterministic.

g++ compiles the unmodified kernels and launchers against the harness beside this file, which runs
every CUDA thread as a fiber. A program for each op (check_multi_tensor_loss and so on) compares
every element that a kernel writes with float64 formulas; they run under the sanitizers. The
planted bugs prove that what the sanitizers and the harness are there for would be seen.

``pytest --emulated-cuda`` runs the tests of the native ops on the same kernels.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import reference
import torch
from harness import build

import ganloss_fast
from ganloss_fast import ops
from ganloss_fast.ops import terms
from ganloss_fast.ops.terms import Segment

pytestmark = [
    pytest.mark.gpu_proof,
    pytest.mark.skipif(
        build.why_no_harness() is not None, reason=f"no harness: {build.why_no_harness()}"
    ),
]


def run(program: Path, *arguments: str, seed: int = -1) -> subprocess.CompletedProcess:
    environment = {
        **os.environ,
        "GANLOSS_HARNESS_SEED": str(seed),
        "TSAN_OPTIONS": "halt_on_error=1 exitcode=66",
        "ASAN_OPTIONS": "detect_leaks=0",
    }
    return subprocess.run(
        [program, *arguments], env=environment, capture_output=True, text=True, check=False
    )


def complaint(result: subprocess.CompletedProcess) -> str:
    return f"exit code {result.returncode}\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}"


# ---- the kernels are right ---------------------------------------------------------------------


@pytest.mark.timeout(600)
@pytest.mark.parametrize("op", build.OPS)
def test_every_element_is_right_and_in_bounds(op):
    """All terms, operands, dtypes and alignments, under AddressSanitizer and UBSan."""
    program = build.build_check(op, "address")
    for seed, arguments in ((-1, ()), (1, ("small",)), (2, ("small",))):
        result = run(program, *arguments, seed=seed)
        assert result.returncode == 0, complaint(result)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("op", build.OPS)
def test_no_schedule_has_a_race(op):
    """ThreadSanitizer, with what CUDA orders as the only order, on three schedules."""
    program = build.build_check(op, "thread")
    for seed in (-1, 1, 2):
        result = run(program, "small", seed=seed)
        assert result.returncode == 0, complaint(result)


@pytest.mark.timeout(900)
def test_the_ops_allocate_what_the_kernels_need():
    """Op tests under AddressSanitizer and UBSan: outputs and workspaces as ATen makes them."""
    from harness import emulation

    emulation.build_library("address")
    runtimes = [
        subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True).stdout
        for name in ("libasan.so", "libubsan.so")
    ]
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(path.strip() for path in runtimes),
        "ASAN_OPTIONS": "detect_leaks=0",
    }
    command = [sys.executable, "-m", "pytest", "--emulated-cuda", "--sanitizer=address"]
    tests = [Path(__file__).parents[1] / folder for folder in ("ops", "penalties")]
    result = subprocess.run(
        [*command, "-m", "order_of_threads", "-k", "(statistics or penalties) and not gradcheck"]
        + [str(folder) for folder in tests],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, complaint(result)


def test_elements_beyond_2_to_the_31_have_their_own_addresses():
    result = run(build.build_check("multi_tensor_loss", "address"), "huge")
    assert result.returncode == 0, complaint(result)


# ---- planted bugs ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bug:
    """A change of one kernel source, what must see it, and what that must say."""

    name: str
    file: str
    right: str
    wrong: str
    sanitizer: str
    says: str
    op: str = "multi_tensor_loss"


BUGS = (
    Bug("ticket that releases nothing", "reduce.cuh", "::cuda::memory_order_acq_rel",
        "::cuda::memory_order_acquire", "thread", "data race"),
    Bug("ticket that acquires nothing", "reduce.cuh", "::cuda::memory_order_acq_rel",
        "::cuda::memory_order_release", "thread", "data race"),
    Bug("missing barrier", "reduce.cuh", "  __syncthreads();\n  if (warp != 0) return;",
        "  if (warp != 0) return;", "thread", "data race"),
    Bug("missing barrier behind the ticket", "reduce.cuh",
        "  __syncthreads();\n  return is_last[0];", "  return is_last[0];", "thread", "data race"),
    Bug("missing barrier between two sums", "reduce.cuh",
        "  __syncthreads();  // the sums of an earlier call have been read\n", "", "thread",
        "data race", op="norm_penalty"),
    Bug("load out of bounds", "tile.cuh", "if (tile.has(k)) elements[k] = ",
        "elements[k] = ", "address", "heap-buffer-overflow"),
    Bug("store out of bounds", "tile.cuh", "if (tile.has(k)) to[", "to[", "address",
        "heap-buffer-overflow"),
    Bug("misaligned vector load", "multi_tensor_loss.cu", "entry.is_aligned = is_aligned;",
        "entry.is_aligned = true;", "address", "misaligned address"),
    Bug("divergent barrier", "multi_tensor_loss.cuh", "  block_sum(sums);\n",
        "  if (threadIdx.x >= 64) return;\n  block_sum(sums);\n", "address",
        "after some threads of the block have exited"),
    Bug("shuffle with lanes that left", "multi_tensor_loss.cuh", "  block_sum(sums);\n",
        "  if (threadIdx.x % 32 >= 16) return;\n  block_sum(sums);\n", "address", "exited"),
    Bug("ticket not left at 0", "reduce.cuh", "    if (is_last[0]) *ticket = 0;\n", "", "plain",
        "wrong values"),
    Bug("ticket not left at 0", "reduce.cuh", "    if (is_last[0]) *ticket = 0;\n", "", "plain",
        "wrong values", op="norm_penalty"),
    Bug("last wave of a few blocks", "multi_tensor_loss.cu",
        "divide_up(blocks_with(1), waves * wave));", "kMostTilesOfChunk);", "plain",
        "wrong values"),
    Bug("short lists in long arguments", "multi_tensor_loss.cu", "1024, 4096, 8192, 32764",
        "32764", "plain", "wrong values"),
    Bug("a second wave of a few pieces", "rows.cuh",
        "target_blocks(call) / std::max<int64_t>(1, call.rows)",
        "divide_up(target_blocks(call), std::max<int64_t>(1, call.rows))", "plain",
        "wrong values", op="norm_penalty"),
    Bug("no operand where the slope is not constant", "multi_tensor_loss.cu",
        "math::has_constant_slope(from.term)", "true", "plain", "wrong values"),
    Bug("noise of another element", "perturb.cu", "group * kBlocks + b)", "group + b)", "address",
        "wrong values", op="perturb"),
    Bug("32-bit block of noise", "perturb.cu", "static_cast<uint64_t>(group * kBlocks + b)",
        "static_cast<uint32_t>(group * kBlocks + b)", "address", "wrong values", op="perturb"),
    Bug("load of a group out of bounds", "perturb.cu", "k < count ? T(to_compute(from[k]))",
        "true ? T(to_compute(from[k]))", "address", "heap-buffer-overflow", op="perturb"),
    Bug("store of a group out of bounds", "perturb.cu", "if (k < count) to[k]", "to[k]",
        "address", "heap-buffer-overflow", op="perturb"),
    Bug("misaligned words of a group", "perturb.cu", "is_word(inputs) && is_word(out)",
        "true", "address", "misaligned address", op="perturb"),
    Bug("two threads for one group", "perturb.cu", "* kThreads + threadIdx.x;",
        "* kThreads + threadIdx.x / 2;", "thread", "data race", op="perturb"),
    Bug("cube of a tiny norm", "norm_penalty.cu", "(dots[row] * inverse) * inverse",
        "inverse * inverse * dots[row]", "plain", "wrong values", op="norm_penalty"),
)  # fmt: skip


@pytest.mark.timeout(600)
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: f"{bug.op}: {bug.name}")
def test_planted_bug_is_caught(bug, tmp_path):
    shutil.copytree(build.ROOT / "csrc", tmp_path / "csrc")
    source = tmp_path / build.KERNELS / bug.file
    text = source.read_text()
    assert bug.right in text, f"{bug.file} has changed: plant the bug where it is now"
    source.write_text(text.replace(bug.right, bug.wrong))
    program = build.build_check(bug.op, bug.sanitizer, tmp_path)
    result = run(program, *(["small"] if bug.sanitizer == "thread" else []), seed=1)
    assert result.returncode != 0, "not caught"
    assert bug.says in result.stdout + result.stderr, complaint(result)


# ---- the ops on the emulated kernels -----------------------------------------------------------


@pytest.fixture
def emulated():
    from harness import emulation

    with ganloss_fast.use_backend("native"), emulation.emulated_cuda():
        yield emulation
    emulation.set_schedule(-1)
    emulation.set_stream(0)


@pytest.fixture
def segments() -> list[Segment]:
    """Segments of every kind and dtype that one loss may hold, of which two span blocks."""

    def draw(*shape, dtype=torch.float32):
        return torch.randn(shape).to(dtype).requires_grad_()

    return [
        Segment(draw(3, 3001), terms.softplus(-1.0), 0.5),
        Segment(draw(4099, dtype=torch.bfloat16), terms.hinge(1.0, 1.0), b=draw(4099).bfloat16()
                .detach().requires_grad_()),
        Segment(draw(7), terms.squared(0.3), 2.0, b=draw(), weight=torch.rand(7)),
        Segment(draw(33, 5, dtype=torch.float16), terms.ABSOLUTE, -1.0),
    ]  # fmt: skip


def inputs_of(segments):
    return [t for s in segments for t in (s.a, s.b) if t is not None]


def test_a_list_is_one_launch_forward_and_one_backward(emulated, segments):
    before = emulation_counts(emulated)
    total = ops.multi_tensor_loss(segments, with_statistics=True).total
    assert emulation_counts(emulated) - before == 1
    torch.autograd.grad(total, inputs_of(segments))
    assert emulation_counts(emulated) - before == 2


def emulation_counts(emulated) -> int:
    return emulated.launches()


@pytest.mark.parametrize(("length", "expected"), [(40, 1), (60, 1), (400, 1), (600, 2)])
def test_only_lists_beyond_the_argument_limit_take_several_launches(emulated, length, expected):
    """32 KiB of arguments hold 500 segments (CUDA 13)."""
    inputs = [torch.randn(1 + k % 5) for k in range(length)]
    given = [Segment(a, terms.softplus(1.0), 1.0 + k) for k, a in enumerate(inputs)]
    before = emulated.launches()
    outputs = ops.multi_tensor_loss(given)
    assert emulated.launches() - before == expected
    truth = reference.multi_tensor_loss(given)
    torch.testing.assert_close(outputs.total, truth.total, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(outputs.values, truth.values, rtol=1e-5, atol=1e-6)


def test_a_small_loss_needs_no_ticket(emulated):
    """One block finishes alone: no memory is filled before the launch, not even under capture."""
    emulated.set_stream(1, is_capturing=True)
    before = emulated.memsets()
    ops.multi_tensor_loss([Segment(torch.randn(64), terms.LINEAR)])
    assert emulated.memsets() == before


def test_a_gradient_that_is_no_sum_needs_no_ticket(emulated, segments):
    emulated.set_stream(1, is_capturing=True)
    plain = [s for s in segments if s.b is None]
    total = ops.multi_tensor_loss(plain).total
    before = emulated.memsets()
    torch.autograd.grad(total, [s.a for s in plain])
    assert emulated.memsets() == before


def sums_over_blocks() -> list[torch.Tensor]:
    """Of both kinds of kernels that take a ticket, forward and backward."""
    a, gradient = (torch.randn(n, 4001, requires_grad=True) for n in (3, 5))
    b = torch.zeros((), requires_grad=True)
    total = ops.multi_tensor_loss([Segment(a, terms.softplus(1.0), b=b)]).total
    penalty, _ = ops.norm_penalty(gradient, "two_sided", 1.0, 10.0)
    return [total, penalty, *torch.autograd.grad([total, penalty], [a, b, gradient])]


def test_a_stream_zeroes_its_ticket_once_and_every_launch_leaves_it_at_0(emulated):
    emulated.set_stream(16)
    address, _ = emulated.ticket()
    before = emulated.memsets()
    for _ in range(3):
        sums_over_blocks()
        assert emulated.ticket() == (address, 0)
    assert emulated.memsets() == before


def test_streams_that_run_side_by_side_share_no_ticket(emulated):
    addresses = set()
    for handle in (0, 32, 48, 64):
        emulated.set_stream(handle)
        addresses |= {emulated.ticket()[0], emulated.ticket()[0]}
    assert len(addresses) == 4


def test_a_graph_takes_a_ticket_from_its_own_memory_and_zeroes_it_in_every_replay(emulated):
    """Its replays may run beside what the stream of the capture does then."""
    emulated.set_stream(80)
    of_stream, _ = emulated.ticket()
    emulated.set_stream(80, is_capturing=True)
    before = emulated.memsets()
    assert emulated.ticket()[0] != of_stream
    assert emulated.memsets() - before == 1
    sums_over_blocks()
    assert emulated.memsets() - before == 4  # two forwards, and the gradient of b
    emulated.set_stream(80)
    assert emulated.ticket() == (of_stream, 0)


def test_the_handle_of_all_threads_own_streams_is_no_stream(emulated):
    """cudaStreamPerThread names another stream in every thread."""
    per_thread = 2
    emulated.set_stream(per_thread)
    before = emulated.memsets()
    sums_over_blocks()
    assert emulated.memsets() - before == 3


def test_with_more_streams_than_tickets_the_others_take_one_for_a_call(emulated):
    before = emulated.memsets()
    for handle in range(1000, 1300):
        emulated.set_stream(handle)
        emulated.ticket()
        emulated.ticket()
    assert emulated.memsets() - before > 300
    assert emulated.ticket()[1] == 0


@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (5000, 2), (1, 70001), (16, 3000)])
def test_a_penalty_is_one_launch_forward_and_one_backward(emulated, shape):
    gradient = torch.randn(shape, requires_grad=True)
    before = emulated.launches()
    penalty, _ = ops.norm_penalty(gradient, "two_sided", 1.0, 10.0)
    assert emulated.launches() - before == 1
    torch.autograd.grad(penalty, gradient)
    assert emulated.launches() - before == 2


def test_noise_is_one_launch_and_no_fill(emulated):
    before, fills = emulated.launches(), emulated.memsets()
    ops.perturb(torch.randn(3, 4001), 0.5, torch.tensor(7))
    assert emulated.launches() - before == 1
    ops.perturb(torch.empty(0, 3), 0.5, torch.tensor(7))
    assert emulated.launches() - before == 1
    assert emulated.memsets() == fills


def test_results_do_not_depend_on_the_schedule(emulated, segments):
    """Bitwise, for every output of every op, forward to double backward."""
    gradient = torch.randn(5, 4001, requires_grad=True)
    tiny = torch.randn(900, 3, requires_grad=True)

    def everything():
        outputs = ops.multi_tensor_loss(segments, with_statistics=True)
        inputs = inputs_of(segments)
        first = torch.autograd.grad(outputs.total, inputs, create_graph=True)
        second = torch.autograd.grad(
            sum(g.float().square().sum() for g in first), inputs, materialize_grads=True
        )
        penalties = [ops.norm_penalty(g, "two_sided", 1.0, 1.0)[0] for g in (gradient, tiny)]
        noisy = ops.perturb(gradient, 0.5, torch.tensor(7))
        return [*outputs, *first, *second, *penalties, noisy, *torch.autograd.grad(
            sum(penalties), [gradient, tiny])]  # fmt: skip

    emulated.set_schedule(-1)
    expected = everything()
    for seed in (1, 2, 3):
        emulated.set_schedule(seed)
        for actual, same in zip(everything(), expected):
            assert torch.equal(actual, same)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_public_functions_agree_with_the_reference(emulated, dtype):
    """A spot check of the whole way; --emulated-cuda runs the suite of the ops."""
    real = [torch.randn(n, 1, 17, dtype=torch.float32).to(dtype).requires_grad_() for n in (3, 301)]
    fake = [torch.randn_like(r).requires_grad_() for r in real]
    for loss in ("bce", "hinge", ganloss_fast.BCE(relativistic="average")):
        results = []
        for backend in ("native", "reference"):
            with ganloss_fast.use_backend(backend):
                value = ganloss_fast.discriminator_loss(real, fake, loss)
                results.append([value, *torch.autograd.grad(value, real + fake)])
        for actual, expected in zip(*results):
            assert actual.dtype == expected.dtype
            torch.testing.assert_close(
                actual, expected, rtol=4 * torch.finfo(dtype).eps + 1e-6, atol=1e-6
            )
