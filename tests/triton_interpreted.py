"""What the tests of the interpreted Triton kernels share.

They need a process of their own, because the interpreter is chosen before Triton is imported:

    TRITON_INTERPRET=1 python -m pytest tests/ops/test_triton_*.py
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import reference
import torch
import triton_guard

from ganloss_fast import backends, ops
from ganloss_fast.ops import terms
from ganloss_fast.ops.terms import Segment
from ganloss_fast.ops.triton import layout, multi_tensor_loss, norm_penalty, perturb

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
EPSILON = {dtype: torch.finfo(dtype).eps for dtype in DTYPES}


def compute_epsilon(dtype: torch.dtype) -> float:
    return EPSILON[torch.float64 if dtype == torch.float64 else torch.float32]


@contextlib.contextmanager
def triton_under_guard() -> Iterator[None]:
    """Guarded kernels, NaN in fresh memory (deterministic mode fills it), the same numbers.

    So an element that no program writes is seen.
    """
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    try:
        with triton_guard.guarded(), backends.use_backend("triton"):
            yield
    finally:
        torch.use_deterministic_algorithms(False)


def set_block(monkeypatch, block: int, programs: int) -> None:
    """Small tiles and few programs: every edge of a kernel lies within a few elements."""
    for module in (layout, multi_tensor_loss, perturb):
        monkeypatch.setattr(module, "BLOCK", block)
    for module in (layout, multi_tensor_loss, norm_penalty):
        monkeypatch.setattr(module, "MAX_PROGRAMS", programs)


# Short rows (several to a program), rows of one program, rows of several: with tiles of 16.
BATCHES = [(1,), (5,), (7, 3), (40, 8), (3, 17), (2, 3, 5, 7), (1, 333), (0, 5), (4, 0)]


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
    segments = [
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
    assert {s.term.code for s in segments} == set(range(len(terms.TERM_NAMES)))
    return segments


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


def penalty_orders(op, g, mode):
    penalty, norms = op(g, mode, 1.0, 10.0)
    (first,) = torch.autograd.grad(penalty, g, create_graph=True)
    direction = torch.linspace(-1, 2, g.numel()).view(g.shape).to(g)
    (second,) = torch.autograd.grad((first * direction).sum(), g)
    return penalty, norms, first, second


LAYOUTS = {
    "contiguous": lambda x: x.clone(),
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(1, 3).contiguous().transpose(1, 3),
    "slice": lambda x: torch.cat([x, x], 1)[:, ::2],
    "misaligned": lambda x: torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape),
    "expanded": lambda x: x[:, :1].expand(x.shape),
    "negated view": lambda x: torch.complex(x, -x).conj().imag,
}
