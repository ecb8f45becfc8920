"""Each term's value, slope and curvature, for every implementation."""

from __future__ import annotations

import math

import pytest
import torch
from oracle import TRUTHS, assert_close, assert_tail_is_kept, softplus, ulps
from torch import Tensor

from ganloss_fast import ops
from ganloss_fast.ops import terms
from ganloss_fast.ops.norm_penalty import PENALTY_MODES
from ganloss_fast.ops.terms import Segment, Term

pytestmark = pytest.mark.every_implementation

INF = math.inf


def evaluate(term: Term, points: Tensor, copies: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Value, slope and curvature at each point, from one segment of equal logits per point.

    With one copy only the partial vector at the end of a kernel runs, with 64 only full ones.
    """
    logits = [torch.full((copies,), z, dtype=points.dtype).requires_grad_() for z in points]
    values = ops.multi_tensor_loss([Segment(z, term) for z in logits]).values
    slopes = torch.autograd.grad(values.sum(), logits, create_graph=True)
    slope_sum = sum(slope.sum() for slope in slopes)
    curvatures = [torch.zeros_like(z) for z in logits]
    if slope_sum.requires_grad:  # not that of a linear term in plain PyTorch
        curvatures = torch.autograd.grad(slope_sum, logits, materialize_grads=True)
    return (
        values.detach(),
        torch.stack([slope[-1].detach() * copies for slope in slopes]),
        torch.stack([curvature[-1] * copies for curvature in curvatures]),
    )


def test_triton_lists_the_same_terms():
    pytest.importorskip("triton", reason="Triton is not installed")
    from ganloss_fast.ops.triton.terms import TERM_FUNCTIONS

    assert tuple(TERM_FUNCTIONS) == terms.TERM_NAMES


def test_a_row_of_the_reference_holds_the_function_of_its_name():
    assert [function.__name__ for function in terms.TERM_FUNCTIONS.values()] == [
        "_" + {"abs": "absolute"}.get(name, name) for name in terms.TERM_NAMES
    ]


def test_the_truth_knows_every_term():
    """So a term that nobody has written a truth for is not taken for tested."""
    assert {truth.term.code for truth in TRUTHS.values()} == set(range(len(terms.TERM_NAMES)))


@pytest.mark.launches_nothing(reason="reads a table")
def test_native_kernels_list_the_same_terms(native):
    from ganloss_fast import _C

    assert tuple(_C.term_names()) == terms.TERM_NAMES


@pytest.mark.launches_nothing(reason="reads a table")
def test_native_kernels_list_the_same_penalty_modes(native):
    from ganloss_fast import _C

    assert tuple(_C.penalty_mode_names()) == PENALTY_MODES


@pytest.mark.parametrize(
    ("term", "name"),
    [
        (terms.softplus(1.0), "softplus"),
        (terms.hinge(1.0, 1.0), "hinge"),
        (terms.squared(0.0), "squared"),
        (terms.LINEAR, "linear"),
        (terms.ABSOLUTE, "abs"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_code_is_an_index_into_the_names(term, name):
    assert terms.TERM_NAMES[term.code] == name


@pytest.mark.parametrize("copies", [1, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", TRUTHS)
def test_value_slope_and_curvature_are_those_of_the_formula(implementation, name, dtype, copies):
    points = torch.cat([torch.linspace(-30, 30, 241), torch.tensor([-1e4, -100.0, 100.0, 1e4])])
    points = points.to(dtype)
    term, *truths = TRUTHS[name]
    for actual, truth in zip(evaluate(term, points, copies), truths):
        assert_close(actual, truth(points.double()), 4 * torch.finfo(dtype).eps)


# Where a limit exists it is exact; the slope at a kink is 0, as torch.relu's and torch.sign's.
#    term             z      value       slope  curvature
LIMITS = [
    ("softplus(z)", INF, INF, 1.0, 0.0),
    ("softplus(z)", -INF, 0.0, 0.0, 0.0),
    ("softplus(z)", 1e4, 1e4, 1.0, 0.0),
    ("softplus(z)", -1e4, 0.0, 0.0, 0.0),
    ("softplus(z)", 0.0, math.log(2), 0.5, 0.25),
    ("softplus(z)", -0.0, math.log(2), 0.5, 0.25),
    ("softplus(-z)", INF, 0.0, 0.0, 0.0),
    ("softplus(-z)", -INF, INF, -1.0, 0.0),
    ("softplus(-z)", 1e4, 0.0, 0.0, 0.0),
    ("softplus(-z)", -1e4, 1e4, -1.0, 0.0),
    ("softplus(-z)", 0.0, math.log(2), -0.5, 0.25),
    ("relu(1 - z)", 1.0, 0.0, 0.0, 0.0),
    ("relu(1 - z)", INF, 0.0, 0.0, 0.0),
    ("relu(1 - z)", -INF, INF, -1.0, 0.0),
    ("relu(1 - z)", -1e4, 10001.0, -1.0, 0.0),
    ("relu(0.5 + z)", -0.5, 0.0, 0.0, 0.0),
    ("relu(0.5 + z)", INF, INF, 1.0, 0.0),
    ("relu(0.5 + z)", -INF, 0.0, 0.0, 0.0),
    ("(z - 0.7)^2", INF, INF, INF, 2.0),
    ("(z - 0.7)^2", -INF, INF, -INF, 2.0),
    ("z", INF, INF, 1.0, 0.0),
    ("z", -INF, -INF, 1.0, 0.0),
    ("z", -1e4, -1e4, 1.0, 0.0),
    ("|z|", 0.0, 0.0, 0.0, 0.0),
    ("|z|", -0.0, 0.0, 0.0, 0.0),
    ("|z|", INF, INF, 1.0, 0.0),
    ("|z|", -INF, INF, -1.0, 0.0),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("name", "z", "value", "slope", "curvature"), LIMITS, ids=lambda value: str(value)
)
def test_limits_and_kinks_are_exact(implementation, dtype, name, z, value, slope, curvature):
    points = torch.tensor([z], dtype=dtype)
    expected = torch.tensor([value, slope, curvature], dtype=dtype)
    for copies in (1, 64):
        actual = torch.cat(evaluate(TRUTHS[name].term, points, copies))
        torch.testing.assert_close(actual, expected, rtol=2 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("name", TRUTHS)
def test_nan_gives_a_nan_loss(implementation, name):
    for copies in (1, 64):
        value, _, _ = evaluate(TRUTHS[name].term, torch.tensor([math.nan]), copies)
        assert value.isnan().all()


@pytest.mark.parametrize("name", TRUTHS)
def test_one_nan_among_many_logits_gives_a_nan_loss(implementation, name):
    for position in (0, 17, 4095, 4096, 4999):
        logits = torch.zeros(5000)
        logits[position] = math.nan
        assert ops.multi_tensor_loss([Segment(logits, TRUTHS[name].term)]).total.isnan()


@pytest.mark.parametrize(
    ("name", "slope"),
    [
        ("softplus(z)", math.nan),
        ("relu(1 - z)", -1.0),  # torch.relu lets the gradient pass at NaN
        ("relu(0.5 + z)", 1.0),
        ("(z - 0.7)^2", math.nan),
        ("z", 1.0),
    ],
)
def test_slope_at_nan_is_that_of_torch(implementation, name, slope):
    _, actual, _ = evaluate(TRUTHS[name].term, torch.tensor([math.nan]))
    torch.testing.assert_close(actual, torch.tensor([slope]), equal_nan=True)


def test_native_slope_of_abs_at_nan_is_nan(isa):
    """torch.abs gives 0 there, which would hide a NaN in the feature maps from the optimizer."""
    _, slope, _ = evaluate(terms.ABSOLUTE, torch.tensor([math.nan]))
    assert slope.isnan().all()


@pytest.mark.parametrize("copies", [1, 64])
def test_softplus_keeps_its_tail(implementation, copies):
    """At -15 it is 3.06e-7, not the 0 that z - logsigmoid(z) cancels to."""
    assert_tail_is_kept(lambda z: evaluate(terms.softplus(1.0), z, copies)[0])
    assert_tail_is_kept(lambda z: evaluate(terms.softplus(-1.0), -z, copies)[0])


# The points of one call are as many segments: cpu_only, for it takes the harness minutes.


def dense_points() -> Tensor:
    """[-1e4, 1e4], densest where softplus bends and where float32 runs out of range."""
    wide = torch.linspace(-1e4, 1e4, 1001)
    bend = torch.linspace(-30, 30, 3001)
    tail = torch.linspace(-104, -30, 1001)
    return torch.cat([wide, bend, tail, -tail])


@pytest.mark.cpu_only
def test_softplus_is_within_4_ulp(isa):
    points = dense_points()
    value, _, _ = evaluate(terms.softplus(1.0), points)
    assert ulps(value, softplus(points.double())).max() <= 4


@pytest.mark.cpu_only
def test_sigmoid_is_within_4_ulp(isa):
    """The slope of softplus."""
    points = dense_points()
    _, slope, _ = evaluate(terms.softplus(1.0), points)
    assert ulps(slope, torch.sigmoid(points.double())).max() <= 4


@pytest.mark.parametrize("offset", [-60.0, -20.0, 0.0, 5.0, 20.0, 60.0])
def test_mean_of_many_softplus_keeps_its_tail(isa, offset):
    logits = torch.randn(100_003) + offset
    value = ops.multi_tensor_loss([Segment(logits, terms.softplus(1.0))]).total
    assert_close(value, softplus(logits.double()).mean(), 4 * torch.finfo(torch.float32).eps)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["softplus(z)", "softplus(-z)", "relu(1 - z)", "z", "|z|"])
def test_largest_logits_of_the_dtype_give_a_finite_loss_and_gradient(implementation, name, dtype):
    for largest in (torch.finfo(dtype).max, torch.finfo(dtype).min):
        value, slope, _ = evaluate(TRUTHS[name].term, torch.tensor([largest], dtype=dtype))
        assert value.isfinite().all()
        assert slope.isfinite().all()


# ---- the end of the range ----------------------------------------------------------------------


@pytest.mark.parametrize("weight", [None, 0.5, 8.0])
@pytest.mark.parametrize("scale", [1.0, 64.0])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_the_gradient_of_a_square_is_finite_where_the_exact_one_is(
    implementation, dtype, scale, weight
):
    """2 (z - c) overflows above half the largest number; scale w 2 (z - c) / n is far from it."""
    n = 4096
    z = torch.tensor([0.9, -0.9, 0.6, 0.4], dtype=torch.float64) * torch.finfo(dtype).max
    a = z.to(dtype).repeat(n // 4).requires_grad_()
    w = None if weight is None else torch.full((n,), weight)
    (gradient,) = torch.autograd.grad(total_of(Segment(a, terms.squared(0.7), scale, weight=w)), a)
    exact = a.detach().double() * (2 * scale * (weight or 1.0) / n)
    assert gradient.isfinite().all()
    torch.testing.assert_close(gradient.double(), exact, rtol=torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize(("scale", "weight"), [(1000.0, 1e-3), (1e-3, 1000.0)])
def test_a_large_factor_meets_a_small_one_before_it_overflows(implementation, scale, weight):
    """scale w 2 z / n = 2e38, whether the large factor is the scale or the weight."""
    a = torch.full((3,), 3e38, requires_grad=True)
    w = torch.full((3,), weight)
    (gradient,) = torch.autograd.grad(total_of(Segment(a, terms.squared(0.0), scale, weight=w)), a)
    torch.testing.assert_close(gradient, torch.full((3,), 2e38), rtol=1e-6, atol=0)


def test_the_second_order_of_a_square_is_finite_at_the_end_of_the_range(implementation):
    """The gradient factor 2 z / n along v = 1: 2 factor / n for z, and mean(2 z) for factor."""
    a = torch.full((64,), 1e38, requires_grad=True)
    with torch.no_grad():
        a[::2] = -3e38
    factor = torch.tensor(1.0, requires_grad=True)
    loss = factor * total_of(Segment(a, terms.squared(0.0)))
    (first,) = torch.autograd.grad(loss, a, create_graph=True)
    to_a, to_factor = torch.autograd.grad(first, (a, factor), torch.ones(64))
    torch.testing.assert_close(to_a, torch.full((64,), 2 / 64))
    if implementation != "reference":  # plain PyTorch adds 2 z before it divides by n
        torch.testing.assert_close(to_factor, torch.tensor(-2e38), rtol=1e-6, atol=0)


def total_of(segment: Segment) -> Tensor:
    return ops.multi_tensor_loss([segment]).total


MEANS = {  # term, logits of which half have each value, their mean
    "linear": (terms.LINEAR, (3e38, 2e38), 2.5e38),
    "abs": (terms.ABSOLUTE, (-3e38, 2e38), 2.5e38),
    "hinge": (terms.hinge(1.0, 1.0), (-3e38, 3e38), 1.5e38),
    "softplus": (terms.softplus(1.0), (3e38, -3e38), 1.5e38),
    "a square of which the largest overflows": (terms.squared(0.0), (2e19, 1e19), 2.5e38),
}


@pytest.mark.cpu_only  # on a GPU sums are in float32, as plain PyTorch's are everywhere
@pytest.mark.parametrize("needs_gradient", [False, True])
@pytest.mark.parametrize("name", MEANS)
def test_the_mean_of_large_values_is_finite(isa, name, needs_gradient):
    """Though their sum is not: 1.25e42."""
    term, values, mean = MEANS[name]
    a = torch.tensor(values).repeat(2500).requires_grad_(needs_gradient)
    for weight in (None, torch.ones(5000)):
        loss = total_of(Segment(a, term, weight=weight))
        torch.testing.assert_close(loss.detach(), torch.tensor(mean), rtol=1e-6, atol=0)


@pytest.mark.cpu_only
def test_the_mean_of_large_doubles_is_finite(isa):
    a = torch.full((1000,), 1.5e308, dtype=torch.float64)
    assert_close(total_of(Segment(a, terms.LINEAR)), a[0], 1e-13)


@pytest.mark.cpu_only
def test_the_difference_of_a_pair_may_be_larger_than_either(isa):
    """The values take it in double: only one of 64 pairs is 6e38 apart. Slopes know its sign."""
    a, b = torch.zeros(64), torch.zeros(64)
    a[5], b[5] = 3e38, -3e38
    a.requires_grad_()
    loss = total_of(Segment(a, terms.ABSOLUTE, b=b))
    assert_close(loss, torch.tensor(6e38 / 64), 1e-6)
    (gradient,) = torch.autograd.grad(loss, a)
    assert_close(gradient, torch.eye(64)[5] / 64, 1e-6)


@pytest.mark.cpu_only
@pytest.mark.parametrize("value", [INF, -INF, math.nan])
def test_an_infinite_mean_stays_what_it_is(isa, value):
    a = torch.zeros(5000)
    a[4321] = value
    actual = ops.multi_tensor_loss([Segment(a, terms.LINEAR)]).total
    torch.testing.assert_close(actual, torch.tensor(value), equal_nan=True)
