"""The truth that tests compare with, and the assertions they share.

The formulas are written again here, from the papers and in float64, and never taken from the
package: a mistake there cannot hide here. test_planted_bugs.py proves that each assertion fails
on the bug that it is there for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ganloss_fast.ops import terms
from ganloss_fast.ops.terms import Segment, Term

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
HALVES = (torch.float16, torch.bfloat16)
EPSILON = {dtype: torch.finfo(dtype).eps for dtype in DTYPES}


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Halves are computed in float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def compute_epsilon(dtype: torch.dtype) -> float:
    return EPSILON[compute_dtype(dtype)]


# ---- terms -------------------------------------------------------------------------------------


class Truth(NamedTuple):
    """A term, and what it is: plain PyTorch functions of z, right in float64."""

    term: Term
    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    curvature: Callable[[Tensor], Tensor]


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)); F.softplus turns into the identity above 20."""
    return torch.logaddexp(x, torch.zeros_like(x))


def bce(logits: Tensor, target: float | Tensor) -> Tensor:
    """Elementwise cross-entropy with any target."""
    return target * softplus(-logits) + (1 - target) * softplus(logits)


def flat(z: Tensor) -> Tensor:
    return torch.zeros_like(z)


TRUTHS = {
    "softplus(z)": Truth(
        terms.softplus(1.0),
        softplus,
        torch.sigmoid,
        lambda z: torch.sigmoid(z) * torch.sigmoid(-z),
    ),
    "softplus(-z)": Truth(
        terms.softplus(-1.0),
        lambda z: softplus(-z),
        lambda z: -torch.sigmoid(-z),
        lambda z: torch.sigmoid(z) * torch.sigmoid(-z),
    ),
    "relu(1 - z)": Truth(
        terms.hinge(1.0, 1.0), lambda z: torch.relu(1 - z), lambda z: -(z < 1).to(z), flat
    ),
    "relu(0.5 + z)": Truth(
        terms.hinge(-1.0, 0.5), lambda z: torch.relu(0.5 + z), lambda z: (z > -0.5).to(z), flat
    ),
    "(z - 0.7)^2": Truth(
        terms.squared(0.7),
        lambda z: (z - 0.7) ** 2,
        lambda z: 2 * (z - 0.7),
        lambda z: torch.full_like(z, 2.0),
    ),
    "z": Truth(terms.LINEAR, lambda z: z, torch.ones_like, flat),
    "|z|": Truth(terms.ABSOLUTE, torch.abs, torch.sign, flat),
}


# ---- segments ----------------------------------------------------------------------------------

OPERANDS = ("a", "a - b", "a - mean", "w, a", "w, a - b", "w, a - mean")


def draw(*shape: int, dtype: torch.dtype = torch.float32, scale: float = 2.0) -> Tensor:
    return (scale * torch.randn(shape, dtype=torch.float64)).to(dtype)


def draw_segment(
    term: Term, operands: str, shape: Sequence[int], dtype: torch.dtype, scale: float = 1.0
) -> Segment:
    """A segment with the operands that a name in OPERANDS lists, all that can requiring grad."""
    a = draw(*shape, dtype=dtype).requires_grad_()
    b = weight = None
    if "b" in operands:
        b = draw(*shape, dtype=dtype).requires_grad_()
    elif "mean" in operands:
        b = draw(dtype=dtype).requires_grad_()
    if "w" in operands:
        weight = torch.rand(shape, dtype=torch.float64).to(dtype)
    return Segment(a, term, scale, b, weight)


def inputs_of(segments: Sequence[Segment]) -> list[Tensor]:
    """The tensors of segments that require grad, in a fixed order."""
    tensors = [t for segment in segments for t in (segment.a, segment.b) if t is not None]
    return [tensor for tensor in tensors if tensor.requires_grad]


def in_dtype(segments: Sequence[Segment], dtype: torch.dtype) -> list[Segment]:
    """The same segments on fresh leaves of another dtype."""

    def convert(tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        return tensor.detach().to(dtype, copy=True).requires_grad_(tensor.requires_grad)

    return [s._replace(a=convert(s.a), b=convert(s.b), weight=convert(s.weight)) for s in segments]


def truth_of(term: Term) -> Truth:
    return next(truth for truth in TRUTHS.values() if truth.term == term)


def plain_values(segments: Sequence[Segment]) -> list[Tensor]:
    """mean(w phi(a - b)) of each segment, as one writes it by hand, in the dtype of its inputs."""
    values = []
    for a, term, _, b, weight in segments:
        value = truth_of(term).value(a if b is None else a - b)
        values.append((value if weight is None else weight * value).mean())
    return values


def plain_total(segments: Sequence[Segment]) -> Tensor:
    values = plain_values(segments)
    return sum(segment.scale * value for segment, value in zip(segments, values))


# ---- assertions --------------------------------------------------------------------------------


def relative_error(actual: Tensor, truth: Tensor) -> float:
    """Largest error over the largest finite magnitude of the truth.

    NaN against NaN and an infinity against itself are no error, against anything else inf.
    """
    actual, truth = actual.detach().double(), truth.detach().double()
    same = (actual == truth) | (actual.isnan() & truth.isnan())
    error = torch.where(same, 0.0, actual - truth).abs()
    error = torch.where(error.isnan(), float("inf"), error)
    scale = truth[truth.isfinite()].abs()
    largest = error.max().item() if error.numel() else 0.0
    return largest / scale.max().item() if scale.any() else largest


def assert_close(actual: Tensor, truth: Tensor, tolerance: float) -> None:
    assert actual.shape == truth.shape
    error = relative_error(actual, truth)
    assert error <= tolerance, f"relative error {error:.2e} is above {tolerance:.2e}"


def assert_no_worse(actual: Tensor, plain: Tensor, truth: Tensor, slack: float) -> None:
    """Not further from the truth than plain PyTorch is, plus a slack."""
    assert_close(actual, truth, relative_error(plain, truth) + slack)


def ulps(actual: Tensor, truth: Tensor) -> Tensor:
    """Distance from a float64 truth in units of the last place of actual's dtype there."""
    rounded = truth.to(actual.dtype).abs()
    above = torch.nextafter(rounded, torch.full_like(rounded, float("inf")))
    spacing = above.double() - rounded.double()
    return (actual.double() - truth).abs() / spacing


def assert_tail_is_kept(softplus_of: Callable[[Tensor], Tensor], limit: float = 4.0) -> None:
    """log(1 + exp(z)) is right to a few ulp even where it is tiny."""
    z = torch.tensor([-100.0, -88.0, -50.0, -20.0, -15.0, -5.0, 0.0, 5.0, 15.0, 88.0, 1e4])
    worst = ulps(softplus_of(z), softplus(z.double())).max().item()
    assert worst <= limit, f"softplus is {worst:.1f} ulp off"


def same_bits(x: Tensor, y: Tensor) -> bool:
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
    return x.dtype == y.dtype and torch.equal(
        x.contiguous().view(integer), y.contiguous().view(integer)
    )


def assert_bitwise_repeatable(
    compute: Callable[[], Sequence[Tensor]], threads: Sequence[int] = (1, 2), runs: int = 2
) -> None:
    """The same bits, run after run and for every number of threads."""
    before = torch.get_num_threads()
    expected = None
    try:
        for count in threads:
            torch.set_num_threads(count)
            for _ in range(runs):
                results = [result.detach() for result in compute()]
                expected = expected or results
                for k, (result, first) in enumerate(zip(results, expected)):
                    assert same_bits(result, first), f"result {k} differs at {count} threads"
    finally:
        torch.set_num_threads(before)


def assert_gradients_match(
    loss_of: Callable[[Sequence[Segment]], Tensor],
    segments: Sequence[Segment],
    tolerance: float,
) -> None:
    """Every input gets a gradient, and it is that of the formula: first and second order."""
    exact = in_dtype(segments, torch.float64)
    inputs, exact_inputs = inputs_of(segments), inputs_of(exact)
    loss = loss_of(segments)
    assert loss.requires_grad, "the loss does not require grad"
    actual = torch.autograd.grad(loss, inputs, create_graph=True, allow_unused=True)
    truth = torch.autograd.grad(plain_total(exact), exact_inputs, create_graph=True)
    for k, (gradient, expected) in enumerate(zip(actual, truth)):
        assert gradient is not None, f"input {k} gets no gradient"
        assert_close(gradient, expected, tolerance)

    directions = [draw(*t.shape, dtype=torch.float64) for t in exact_inputs]
    actual_dot = sum((g * d.to(g)).sum() for g, d in zip(actual, directions))
    truth_dot = sum((g * d).sum() for g, d in zip(truth, directions))
    if not truth_dot.requires_grad:  # a linear loss
        return
    actual_second = torch.autograd.grad(actual_dot, inputs, allow_unused=True)
    truth_second = torch.autograd.grad(truth_dot, exact_inputs, allow_unused=True)
    for k, (gradient, expected) in enumerate(zip(actual_second, truth_second)):
        if expected is None or not expected.any():
            assert gradient is None or not gradient.any()
        else:
            assert gradient is not None, f"input {k} gets no second-order gradient"
            assert_close(gradient, expected, tolerance)
