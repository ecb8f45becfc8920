"""The Triton kernels, run on the CPU in Triton's interpreter under the guard of triton_guard.py.

They need a process of their own, because the interpreter is chosen before Triton is imported:

    TRITON_INTERPRET=1 python -m pytest tests/test_triton_kernels.py

Memory from torch.empty is filled with NaN (deterministic mode does that), so an element that no
program writes is seen.
"""

from __future__ import annotations

import math

import pytest
import torch
import triton_guard

if triton_guard.why_unavailable():
    pytest.skip(f"interpreter: {triton_guard.why_unavailable()}", allow_module_level=True)

import triton
import triton.language as tl

from ganloss_fast import backends, ops, reference, terms
from ganloss_fast.terms import Segment
from ganloss_fast.triton_kernels import launchers, layout, multi_tensor_loss, reduction, rows
from ganloss_fast.triton_kernels.terms import CURVATURE, SLOPE, TERM_FUNCTIONS, VALUE

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
EPSILON = {dtype: torch.finfo(dtype).eps for dtype in DTYPES}
INF, NAN = math.inf, math.nan
CUDA_OPS = ("multi_tensor_loss", "gradient_penalty_loss", "interpolate")


def compute_epsilon(dtype: torch.dtype) -> float:
    return EPSILON[torch.float64 if dtype == torch.float64 else torch.float32]


@pytest.fixture(autouse=True)
def triton_under_guard():
    """Every test: guarded kernels, NaN in fresh memory, one thread, the same numbers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    with triton_guard.guarded(), backends.use_backend("triton"):
        yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def set_block(monkeypatch, block: int, programs: int) -> None:
    """Small tiles and few programs: every edge of a kernel lies within a few elements."""
    for module in (layout, launchers):
        monkeypatch.setattr(module, "BLOCK", block)
        monkeypatch.setattr(module, "MAX_PROGRAMS", programs)


@pytest.fixture
def small_blocks(monkeypatch):
    set_block(monkeypatch, 16, 4)


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return (2 * torch.randn(shape, dtype=torch.float64)).to(dtype)


def leaf(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().requires_grad_()


def assert_near(actual, truth, tolerance: float) -> None:
    """Errors relative to the largest element: sums of both signs cancel."""
    assert actual.shape == truth.shape
    truth = truth.double()
    assert torch.equal(actual.isnan(), truth.isnan())
    scale = truth.nan_to_num().abs().amax() if truth.numel() else 0.0
    error = (actual.double() - truth).nan_to_num().abs()
    assert (error <= tolerance * scale + 1e-300).all(), f"{error.max() / scale:.2g} > {tolerance}"


def every_term(size: int, dtype: torch.dtype) -> list[Segment]:
    """A list with every term, and every kind of operands."""
    weight = torch.rand(size, dtype=torch.float64).to(dtype)
    return [
        Segment(leaf(draw(size, dtype=dtype)), terms.softplus(-1.0), 1.5),
        Segment(leaf(draw(size, dtype=dtype)), terms.hinge(1.0, 1.0), 0.5, None, weight),
        Segment(
            leaf(draw(size, dtype=dtype)), terms.squared(0.3), 2.0, leaf(draw(size, dtype=dtype))
        ),
        Segment(leaf(draw(size, dtype=dtype)), terms.LINEAR, -1.0),
        Segment(
            leaf(draw(size, dtype=dtype)), terms.ABSOLUTE, 1.0, leaf(draw(dtype=dtype)), weight
        ),
        Segment(leaf(draw(size, dtype=dtype)), terms.softplus(1.0), 1.0, leaf(draw(dtype=dtype))),
    ]


def inputs_of(segments: list[Segment]) -> list[torch.Tensor]:
    return [t for s in segments for t in (s.a, s.b) if t is not None and t.requires_grad]


def in_float64(segments: list[Segment]) -> list[Segment]:
    """The same segments on leaves of float64, for the reference."""

    def convert(tensor):
        if tensor is None:
            return None
        return tensor.detach().double().requires_grad_(tensor.requires_grad)

    return [s._replace(a=convert(s.a), b=convert(s.b), weight=convert(s.weight)) for s in segments]


def all_orders(op, segments: list[Segment]) -> dict[str, list[torch.Tensor]]:
    """Outputs, gradients, and gradients of the gradients along a fixed direction."""
    outputs = op(segments)
    inputs = inputs_of(segments)
    weights = torch.arange(1.0, len(segments) + 1).to(outputs.values)
    loss = outputs.total + (weights * outputs.values).sum()
    first = torch.autograd.grad(loss, inputs, create_graph=True, materialize_grads=True)
    along = sum((g * torch.linspace(-1, 2, g.numel()).view(g.shape).to(g)).sum() for g in first)
    second = torch.autograd.grad(along, inputs, materialize_grads=True)
    return {"outputs": [outputs.total, outputs.values], "first": first, "second": second}


def assert_matches_reference(segments: list[Segment]) -> None:
    ours = all_orders(ops.multi_tensor_loss, segments)
    truth = all_orders(reference.multi_tensor_loss, in_float64(segments))
    for order, tensors in ours.items():
        for actual, expected in zip(tensors, truth[order]):
            assert_near(actual, expected, 6 * EPSILON[actual.dtype])


# ---- formulas ----------------------------------------------------------------------------------


@triton.jit
def apply_term(
    z, out, first, second, TERM: tl.constexpr, ORDER: tl.constexpr, N: tl.constexpr
):
    offsets = tl.arange(0, N)
    tl.store(out + offsets, TERM(tl.load(z + offsets), first, second, ORDER))


SOFTPLUS_TRUTH = {
    0: lambda z: torch.logaddexp(z, torch.zeros_like(z)),
    1: torch.sigmoid,
    2: lambda z: torch.sigmoid(z) * torch.sigmoid(-z),
}


@pytest.mark.parametrize("order", [VALUE, SLOPE, CURVATURE], ids=["value", "slope", "curvature"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_softplus_is_exact_to_a_few_ulp_over_its_whole_range(dtype, order):
    """Also in the tails, where tl.exp of a GPU is 60 ulp off and softplus is 1e-38."""
    z = torch.linspace(-103, 103, 8192, dtype=torch.float64).to(dtype)
    out = torch.empty_like(z)
    apply_term[(1,)](z, out, 1.0, 0.0, TERM=TERM_FUNCTIONS["softplus"], ORDER=order, N=8192)
    truth = SOFTPLUS_TRUTH[order.value](z.double())
    smallest = 1e-300 if dtype == torch.float64 else torch.finfo(dtype).smallest_normal * 1e-7
    error = (out.double() - truth).abs() - 2 * smallest
    assert (error <= 4 * EPSILON[dtype] * truth).all()


@pytest.mark.parametrize("name", terms.TERM_NAMES)
def test_terms_keep_limits_kinks_and_nan(name):
    """At -inf, -0, 0, 1 (the hinge's kink), inf and NaN: what autograd of plain PyTorch gives."""
    z = torch.tensor([-INF, -0.0, 0.0, 1.0, INF, NAN, -1e30, 1e30])
    code = terms.TERM_NAMES.index(name)
    truth = reference.TERM_FUNCTIONS[code](leaf(z.double()), 1.0, 1.0)
    x = leaf(z.double())
    (slope,) = torch.autograd.grad(reference.TERM_FUNCTIONS[code](x, 1.0, 1.0).sum(), x)
    if name == "abs":
        slope[5] = NAN  # torch.sign gives 0 there, which would hide the NaN of a step
    for order, expected in ((VALUE, truth), (SLOPE, slope)):
        out = torch.empty_like(z)
        apply_term[(1,)](z, out, 1.0, 1.0, TERM=TERM_FUNCTIONS[name], ORDER=order, N=8)
        torch.testing.assert_close(out, expected.detach().float(), equal_nan=True)


# ---- multi_tensor_loss -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [1, 1023, 1024, 1025, 5003])
def test_every_term_and_operand_to_second_order(size, dtype):
    assert_matches_reference(every_term(size, dtype))


@pytest.mark.parametrize("size", [2, 15, 16, 17, 31, 33, 63, 64, 65, 127, 331])
def test_every_edge_of_tiles_and_programs(small_blocks, size):
    """16 elements to a tile and at most 4 programs: above 64, programs take several tiles."""
    assert_matches_reference(every_term(size, torch.float32))


@pytest.mark.parametrize("size", [0, 1, 40])
def test_an_empty_segment_is_nan_and_has_empty_gradients(small_blocks, size):
    segments = [Segment(leaf(draw(0, 3)), terms.squared(0.0)), *every_term(size, torch.float32)]
    ours = all_orders(ops.multi_tensor_loss, segments)
    assert ours["outputs"][1][0].isnan() and ours["outputs"][0].isnan()
    assert ours["first"][0].shape == ours["second"][0].shape == (0, 3)


def test_segments_of_one_call_may_differ_in_dtype(small_blocks):
    segments = [
        Segment(leaf(draw(40, dtype=dtype)), terms.softplus(1.0), 0.5, leaf(draw(dtype=dtype)))
        for dtype in DTYPES
    ]
    ours = all_orders(ops.multi_tensor_loss, segments)
    truth = all_orders(reference.multi_tensor_loss, in_float64(segments))
    assert ours["outputs"][0].dtype == torch.float64
    for segment, actual, expected in zip(segments, ours["outputs"][1], truth["outputs"][1]):
        assert_near(actual, expected, 4 * compute_epsilon(segment.a.dtype))
    for actual, expected in zip(ours["first"], truth["first"]):
        assert_near(actual, expected, 4 * max(EPSILON[actual.dtype], EPSILON[torch.float32]))


LAYOUTS = {
    "contiguous": lambda x: x.clone(),
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(1, 3).contiguous().transpose(1, 3),
    "slice": lambda x: torch.cat([x, x], 1)[:, ::2],
    "misaligned": lambda x: torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape),
    "expanded": lambda x: x[:, :1].expand(x.shape),
    "negated view": lambda x: torch.complex(x, -x).conj().imag,
}


@pytest.mark.parametrize("of_b", LAYOUTS)
@pytest.mark.parametrize("of_a", LAYOUTS)
def test_operands_may_have_any_two_layouts(small_blocks, of_a, of_b):
    x, y, w = draw(3, 4, 5, 2), draw(3, 4, 5, 2), torch.rand(3, 4, 5, 2)
    a, b, weight = leaf(LAYOUTS[of_a](x)), leaf(LAYOUTS[of_b](y)), LAYOUTS[of_b](w)
    assert_matches_reference([Segment(a, terms.squared(0.2), 1.5, b, weight)])


@pytest.mark.parametrize("layout_of_a", ["contiguous", "channels_last", "transposed"])
def test_gradients_have_the_layout_of_their_tensor(small_blocks, layout_of_a):
    a = leaf(LAYOUTS[layout_of_a](draw(3, 4, 5, 2)))
    (gradient,) = torch.autograd.grad(
        ops.multi_tensor_loss([Segment(a, terms.softplus(1.0))]).total, a
    )
    assert gradient.stride() == a.stride()


@pytest.mark.parametrize(
    "read",
    [
        lambda values: values.sum(),  # an expanded gradient, stride 0
        lambda values: values[::2].sum(),
        lambda values: torch.cat([values, 3 * values]).square().sum(),
    ],
    ids=["sum", "slice", "cat"],
)
def test_gradients_of_the_values_may_have_any_stride(small_blocks, read):
    segments = every_term(33, torch.float64)
    exact = in_float64(segments)
    ours = torch.autograd.grad(
        read(ops.multi_tensor_loss(segments).values), inputs_of(segments), materialize_grads=True
    )
    truth = torch.autograd.grad(
        read(reference.multi_tensor_loss(exact).values), inputs_of(exact), materialize_grads=True
    )
    for actual, expected in zip(ours, truth):
        assert_near(actual, expected, 1e-14)


def test_gradcheck_and_gradgradcheck(small_blocks):
    segments = every_term(5, torch.float64)

    def loss(*tensors):
        given = iter(tensors)
        fresh = [
            s._replace(a=next(given), b=None if s.b is None else next(given)) for s in segments
        ]
        outputs = ops.multi_tensor_loss(fresh)
        return outputs.total, outputs.values[4]

    assert torch.autograd.gradcheck(loss, inputs_of(segments), fast_mode=True)
    assert torch.autograd.gradgradcheck(loss, inputs_of(segments), fast_mode=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_statistics_come_from_the_same_pass(small_blocks, dtype):
    segments = every_term(331, dtype)
    plain = ops.multi_tensor_loss(segments)
    detailed = ops.multi_tensor_loss(segments, with_statistics=True)
    assert torch.equal(plain.total, detailed.total) and torch.equal(plain.values, detailed.values)
    assert not detailed.statistics.requires_grad
    for segment, row in zip(segments, detailed.statistics):
        assert_near(row, reference.segment_statistics(segment.a.double()), 1e-5)


def test_statistics_count_what_is_not_finite(small_blocks):
    a = torch.tensor([1.0, INF, NAN, -INF] * 30)
    row = ops.multi_tensor_loss([Segment(a, terms.LINEAR)], True).statistics[0]
    assert row[3] == 90 and row[0].isnan()


@pytest.mark.parametrize("logit", [INF, -INF, NAN])
def test_a_weight_of_zero_removes_an_element_whatever_it_holds(small_blocks, logit):
    a = torch.tensor([0.3, logit] * 20, requires_grad=True)
    segment = Segment(a, terms.softplus(1.0), weight=torch.tensor([1.0, 0.0] * 20))
    loss = ops.multi_tensor_loss([segment]).total
    (first,) = torch.autograd.grad(loss, a, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), a)
    assert_near(loss, torch.tensor(0.3).exp().log1p() / 2, 1e-6)
    assert first.isfinite().all() and not first[1::2].any()
    assert second.isfinite().all() and not second[1::2].any()


# ---- batches -----------------------------------------------------------------------------------

# Short rows (several to a program), rows of one program, rows of several: with tiles of 16.
BATCHES = [(1,), (5,), (7, 3), (40, 8), (3, 17), (2, 3, 5, 7), (1, 333), (0, 5), (4, 0)]


def penalty_orders(op, g, mode):
    penalty, norms = op(g, mode, 1.0, 10.0)
    (first,) = torch.autograd.grad(penalty, g, create_graph=True)
    direction = torch.linspace(-1, 2, g.numel()).view(g.shape).to(g)
    (second,) = torch.autograd.grad((first * direction).sum(), g)
    return penalty, norms, first, second


@pytest.mark.parametrize("mode", reference.PENALTY_MODES)
@pytest.mark.parametrize("shape", BATCHES, ids=str)
def test_the_penalty_to_second_order(small_blocks, shape, mode):
    g = leaf(draw(*shape))
    ours = penalty_orders(ops.gradient_penalty_loss, g, mode)
    truth = penalty_orders(reference.gradient_penalty_loss, leaf(g.double()), mode)
    for actual, expected in zip(ours, truth):
        assert_near(actual, expected, 2e-5)  # float32: 2 - 2 target / norm cancels


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(3, 5), (2, 5000), (2, 3, 31, 29)], ids=str)
def test_the_penalty_in_every_dtype(shape, dtype):
    g = leaf(draw(*shape, dtype=dtype))
    penalty, norms, first, second = penalty_orders(ops.gradient_penalty_loss, g, "two_sided")
    truth = penalty_orders(reference.gradient_penalty_loss, leaf(g.double()), "two_sided")
    assert_near(penalty, truth[0], 20 * compute_epsilon(dtype))
    assert_near(norms, truth[1], 8 * compute_epsilon(dtype))
    for actual, expected in ((first, truth[2]), (second, truth[3])):
        assert actual.dtype == dtype
        assert_near(actual, expected, 40 * compute_epsilon(dtype) + 2 * EPSILON[dtype])


def test_a_sample_with_norm_zero_has_no_gradient_of_any_order(small_blocks):
    g = leaf(torch.cat([torch.zeros(1, 33), draw(2, 33)]))
    _, norms, first, second = penalty_orders(ops.gradient_penalty_loss, g, "two_sided")
    assert norms[0] == 0 and not first[0].any() and not second[0].any()


def test_a_tiny_norm_leaves_the_second_order_finite(small_blocks):
    """n^3 is 0 in float32 at 1e-15; the quotient that the formula asks for is not."""
    g = leaf(torch.full((2, 4), 5e-16))
    *_, second = penalty_orders(ops.gradient_penalty_loss, g, "two_sided")
    *_, truth = penalty_orders(reference.gradient_penalty_loss, leaf(g.double()), "two_sided")
    assert_near(second, truth, 1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("of_g", LAYOUTS)
def test_a_gradient_of_any_layout_is_penalised(small_blocks, of_g, dtype):
    g = leaf(LAYOUTS[of_g](draw(3, 4, 5, 2)).to(dtype))
    penalty, _, first, _ = penalty_orders(ops.gradient_penalty_loss, g, "two_sided")
    truth = penalty_orders(reference.gradient_penalty_loss, leaf(g.double()), "two_sided")
    assert_near(penalty, truth[0], 1e-5)
    assert_near(first, truth[2], 2 * EPSILON[dtype] + 1e-5)
    assert first.stride() == torch.empty_like(g).stride()


ALPHAS = {
    "0-d": lambda shape: torch.rand((), dtype=torch.float64),
    "per sample": lambda shape: torch.rand(shape[0], dtype=torch.float64),
    "per element": lambda shape: torch.rand(shape, dtype=torch.float64),
}


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("shape", BATCHES, ids=str)
def test_interpolate_is_lerp(small_blocks, shape, alpha):
    real, fake, share = draw(*shape), draw(*shape), ALPHAS[alpha](shape)
    share = share.float()
    truth = reference.lerp(real.double(), fake.double(), share.double())
    assert_near(ops.interpolate(real, fake, share), truth, 1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_interpolate_is_exact_at_both_ends(dtype):
    real, fake = draw(4, 700, dtype=dtype), draw(4, 700, dtype=dtype)
    result = ops.interpolate(real, fake, torch.tensor([0.0, 1.0, 0.0, 1.0]))
    assert torch.equal(result[::2], fake[::2]) and torch.equal(result[1::2], real[1::2])


@pytest.mark.parametrize("of_fake", LAYOUTS)
@pytest.mark.parametrize("of_real", LAYOUTS)
@pytest.mark.parametrize("alpha", ["per sample", "per element"])
def test_interpolate_takes_any_two_layouts(small_blocks, of_real, of_fake, alpha):
    real, fake = LAYOUTS[of_real](draw(3, 4, 5, 2)), LAYOUTS[of_fake](draw(3, 4, 5, 2))
    share = ALPHAS[alpha](real.shape).float()
    result = ops.interpolate(real, fake, share)
    assert_near(result, reference.lerp(real.double(), fake.double(), share.double()), 1e-6)
    assert result.stride() == torch.empty_like(real).stride()


@pytest.mark.parametrize("alpha", ALPHAS)
def test_interpolate_passes_gradgradcheck(small_blocks, alpha):
    inputs = [leaf(draw(2, 5, dtype=torch.float64)) for _ in range(2)]
    inputs.append(leaf(ALPHAS[alpha]((2, 5))))
    assert torch.autograd.gradcheck(ops.interpolate, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(ops.interpolate, inputs, fast_mode=True)


@pytest.mark.parametrize("shape", [(3, 4), (2, 37)], ids=str)
def test_the_penalty_passes_gradgradcheck(small_blocks, shape):
    g = leaf(draw(*shape, dtype=torch.float64))

    def penalty(g):
        return ops.gradient_penalty_loss(g, "one_sided", 0.5, 3.0)[0]

    assert torch.autograd.gradcheck(penalty, g, fast_mode=True)
    assert torch.autograd.gradgradcheck(penalty, g, fast_mode=True)


# ---- determinism -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2])
def test_bitwise_the_same_for_every_order_of_programs(small_blocks, seed):
    segments, g = every_term(331, torch.bfloat16), leaf(draw(2, 333))

    def compute():
        orders = all_orders(ops.multi_tensor_loss, segments)
        statistics = ops.multi_tensor_loss(segments, True).statistics
        penalty = penalty_orders(ops.gradient_penalty_loss, g, "two_sided")
        return [*(t for tensors in orders.values() for t in tensors), statistics, *penalty]

    before = compute()
    with triton_guard.guarded(seed):
        after = compute()
    for one, other in zip(before, after):
        assert torch.equal(one, other)


# ---- under the registered ops ------------------------------------------------------------------


@pytest.fixture
def registered():
    """The launchers as the CPU kernels of the registered ops: their C++ autograd runs Triton."""
    if not backends.HAS_NATIVE:
        pytest.skip(f"no extension: {backends.NATIVE_MISSING}")
    library = ops.register_launchers("cpu")
    with backends.use_backend("native"):
        yield
    library._destroy()


@pytest.mark.filterwarnings("ignore:.*verriding a previously registered kernel")
def test_the_c_plus_plus_autograd_runs_on_the_launchers(registered, small_blocks, monkeypatch):
    called = []
    original = launchers.multi_tensor_loss_double_backward
    monkeypatch.setattr(
        launchers,
        "multi_tensor_loss_double_backward",
        lambda *arguments: called.append(1) or original(*arguments),
    )
    assert_matches_reference(every_term(40, torch.float32))
    assert called
    g = leaf(draw(2, 37))
    ours = penalty_orders(ops.gradient_penalty_loss, g, "two_sided")
    truth = penalty_orders(reference.gradient_penalty_loss, leaf(g.double()), "two_sided")
    for actual, expected in zip(ours, truth):
        assert_near(actual, expected, 2e-5)


# ---- direct calls are checked ------------------------------------------------------------------


def test_a_launcher_refuses_what_would_leave_a_tensor():
    a, g = draw(8), draw(2, 3)

    def loss(b=(), weights=(), operands=(0,), terms_=(0,), parameters=(1.0, 0.0)):
        return launchers.multi_tensor_loss(
            [a], list(b), list(weights), list(operands), list(terms_), list(parameters), [1.0], False
        )

    with pytest.raises(ValueError, match="b: expected shape"):
        loss(b=[draw(7)], operands=[1])
    with pytest.raises(ValueError, match="weights: expected shape"):
        loss(weights=[draw(9)], operands=[2])
    with pytest.raises(ValueError, match="b: expected 1 entries"):
        loss(operands=[1])
    with pytest.raises(ValueError, match="terms: expected codes"):
        loss(terms_=[len(terms.TERM_NAMES)])
    with pytest.raises(TypeError, match="a: expected dtype"):
        launchers.multi_tensor_loss([a.int()], [], [], [0], [0], [1.0, 0.0], [1.0], False)
    with pytest.raises(ValueError, match="wanted: expected indices"):
        launchers.multi_tensor_loss_backward(
            a.sum(), None, [a], [], [], [0], [0], [1.0, 0.0], [1.0], [1]
        )
    with pytest.raises(ValueError, match="alpha: expected"):
        launchers.interpolate(g, g, draw(4))
    with pytest.raises(ValueError, match="fake: expected shape"):
        launchers.interpolate(g, draw(2, 4), draw(2))
    with pytest.raises(ValueError, match="direction: expected shape"):
        launchers.gradient_penalty_loss_double_backward(
            draw(2, 4), a.sum(), g, draw(2), 0, 1.0, 1.0
        )


# ---- the guard catches what it is there for ----------------------------------------------------


@triton.jit
def copy_beyond_the_end(x, out, N: tl.constexpr):
    offsets = tl.arange(0, N)
    tl.store(out + offsets, tl.load(x + offsets, mask=offsets < N - 1, other=0.0))


@triton.jit
def read_beyond_the_end(x, out, N: tl.constexpr):
    tl.store(out, tl.sum(tl.load(x + tl.arange(0, N)), 0))


@triton.jit
def lost_update(x, out, N: tl.constexpr):
    offsets = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(out, tl.load(out) + tl.sum(tl.load(x + offsets), 0))


@triton.jit
def multiply_in_bfloat16(x, out, N: tl.constexpr):
    offsets = tl.arange(0, N)
    loaded = tl.load(x + offsets)
    tl.store(out + offsets, loaded * loaded)


@triton.jit
def sum_masked_lanes(x, out, n, N: tl.constexpr):
    offsets = tl.arange(0, N)
    tl.store(out, tl.sum(tl.load(x + offsets, mask=offsets < n), 0))


@triton.jit
def take_relaxed_ticket(ticket):
    return tl.atomic_add(ticket, 1, sem="relaxed") == tl.num_programs(0) - 1


@triton.jit
def take_release_only_ticket(ticket):
    return tl.atomic_add(ticket, 1, sem="release") == tl.num_programs(0) - 1


def test_an_access_out_of_bounds_is_caught():
    with pytest.raises(triton_guard.KernelFault, match="out of bounds: store of 1"):
        copy_beyond_the_end[(1,)](draw(63), draw(63), N=64)
    with pytest.raises(triton_guard.KernelFault, match="out of bounds: load of 1"):
        read_beyond_the_end[(1,)](draw(63), draw(1), N=64)


def test_a_lost_update_is_caught():
    with pytest.raises(triton_guard.KernelFault, match="race"):
        lost_update[(4,)](draw(64), torch.zeros(1), N=16)


def test_arithmetic_in_bfloat16_is_caught():
    x = draw(16, dtype=torch.bfloat16)
    with pytest.raises(triton_guard.KernelFault, match="bfloat16 arithmetic"):
        multiply_in_bfloat16[(1,)](x, torch.empty_like(x), N=16)


def test_a_masked_lane_that_is_used_is_caught():
    out = torch.zeros(1)
    sum_masked_lanes[(1,)](draw(16), out, 9, N=16)
    assert out.isnan()


@pytest.mark.parametrize("ticket", [take_relaxed_ticket, take_release_only_ticket])
@pytest.mark.parametrize("module", [multi_tensor_loss, rows], ids=["segments", "rows"])
def test_a_ticket_that_does_not_acquire_is_caught(monkeypatch, small_blocks, module, ticket):
    """Planted in the kernels themselves: the sums come out right here, and wrong on a GPU."""
    monkeypatch.setattr(module, "take_ticket", ticket)
    with pytest.raises(triton_guard.KernelFault, match="race"):
        ops.multi_tensor_loss([Segment(draw(100), terms.LINEAR)])
        ops.gradient_penalty_loss(draw(2, 100), "two_sided", 1.0, 1.0)


def test_the_ticket_as_it_is_passes(small_blocks):
    assert multi_tensor_loss.take_ticket is rows.take_ticket is reduction.take_ticket
    ops.multi_tensor_loss([Segment(draw(100), terms.LINEAR)])


def test_the_guard_rounds_bfloat16_to_nearest_even():
    """The interpreter alone truncates: half of all values would be one ulp off."""
    values = torch.randn(4096).mul(2.0 ** torch.arange(-60, 68).repeat(32)).float()
    rounded = torch.from_numpy(triton_guard.round_to_bfloat16(values.numpy()).view("int16"))
    assert torch.equal(rounded.view(torch.bfloat16), values.bfloat16())


def test_memory_that_no_program_writes_is_seen(small_blocks, monkeypatch):
    """One program too few: its tile keeps the NaN of fresh memory."""
    monkeypatch.setattr(launchers, "programs_of", lambda segment: 1)
    kernel = multi_tensor_loss.term_gradient_kernel
    monkeypatch.setattr(multi_tensor_loss, "first_tile", skip_a_tile)
    a = leaf(draw(64))
    (gradient,) = torch.autograd.grad(ops.multi_tensor_loss([Segment(a, terms.LINEAR)]).total, a)
    assert kernel is multi_tensor_loss.term_gradient_kernel
    assert gradient[:16].isnan().all() and gradient[16:].isfinite().all()


@triton.jit
def skip_a_tile():
    return tl.program_id(0) + 1
