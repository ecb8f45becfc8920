"""The sum of softplus over a span, of which the kernels take one logarithm for many elements."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ganloss_fast import ops
from ganloss_fast.ops import terms
from ganloss_fast.ops.terms import Segment

# About the vectors, the four that take turns, and the blocks of each instruction set and dtype.
LENGTHS = (1, 3, 7, 16, 17, 63, 64, 65, 255, 256, 1000, 1024, 1025, 4095, 4096, 4097, 20_003)
KINDS = {
    "zeros": lambda n: torch.zeros(n),  # the largest factor, 2, each time
    "just below zero": lambda n: torch.full((n,), -1e-3),
    "small": lambda n: torch.linspace(-9, -7, n),
    "far in the tail": lambda n: torch.linspace(-80, -20, n),
    "large": lambda n: torch.linspace(20, 500, n),
    "one among tails": lambda n: torch.full((n,), -60.0).index_fill(0, torch.tensor(n // 2), 0.3),
    "mixed": lambda n: torch.linspace(-30, 30, n)[torch.randperm(n)],
}


def value_of(logits: Tensor, sign: float = 1.0) -> Tensor:
    """The mean of softplus(sign logits), which is the same where gradients are wanted too."""
    plain, with_gradient = (
        ops.multi_tensor_loss([Segment(each, terms.softplus(sign))]).values[0].detach()
        for each in (logits, logits.clone().requires_grad_())
    )
    torch.testing.assert_close(plain, with_gradient, rtol=0, atol=0, equal_nan=True)
    return plain


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_it_is_the_sum_at_every_length(isa, dtype, kind, sign):
    for n in LENGTHS:
        logits = (sign * KINDS[kind](n)).to(dtype)
        z = sign * logits.double()
        truth = (z.clamp(min=0) + torch.log1p(torch.exp(-z.abs()))).mean().item()
        eps = torch.finfo(torch.promote_types(dtype, torch.float32)).eps
        assert abs(value_of(logits, sign).item() / truth - 1) < 8 * eps, n


@pytest.mark.parametrize("place", [0, 15, 16, 500, 4096, 5000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
def test_what_is_not_finite_stays_itself(isa, dtype, place):
    logits = torch.zeros(5001, dtype=dtype)
    for special, expected in ((float("nan"), float("nan")), (float("inf"), float("inf"))):
        logits[place] = special
        assert str(value_of(logits).item()) == str(expected)
    logits[place] = -float("inf")
    assert value_of(logits).item() == pytest.approx(torch.tensor(2.0).log().item() * 5000 / 5001)
