"""Ops that go over a batch row by row: rows of any length, several of them in one piece of work."""

from __future__ import annotations

import pytest
import torch

from ganloss_fast import ops

pytestmark = [pytest.mark.every_implementation, pytest.mark.order_of_threads]

# Shorter than a vector, a vector, one more, several in a piece, as long as one, longer.
ROWS = [(5000, 3), (300, 16), (300, 17), (100, 31), (700, 210), (2, 16384), (3, 16385), (1, 40000)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", ROWS, ids=str)
def test_the_penalty_of_every_row_and_its_derivatives(implementation, shape, dtype):
    gradient = torch.randn(shape).to(dtype).requires_grad_()
    direction = torch.randn(shape).to(dtype)
    exact = gradient.detach().double().requires_grad_()

    norms = exact.square().sum(1).sqrt()
    truth = 3.0 * (norms - 1.0).square().mean()
    (first,) = torch.autograd.grad(truth, exact, create_graph=True)
    (second,) = torch.autograd.grad((first * direction.double()).sum(), exact)

    penalty, found = ops.norm_penalty(gradient, "two_sided", 1.0, 3.0)
    (ours,) = torch.autograd.grad(penalty, gradient, create_graph=True)
    (ours_second,) = torch.autograd.grad((ours * direction).sum(), gradient)
    tolerance = {torch.float32: 2e-6, torch.float64: 1e-12, torch.bfloat16: 8e-3}[dtype]
    tight = min(tolerance, 2e-6)  # of what is computed in float32 at least
    torch.testing.assert_close(penalty.double(), truth, rtol=tight, atol=0)
    torch.testing.assert_close(found.double(), norms, rtol=tight, atol=0)
    for own, right in ((ours, first.detach()), (ours_second, second)):
        largest = float(right.abs().max())
        torch.testing.assert_close(
            own.detach().double(), right, rtol=tolerance, atol=tolerance * largest
        )


@pytest.mark.parametrize("per_element", [False, True])
@pytest.mark.parametrize("shape", ROWS, ids=str)
def test_every_row_is_mixed_with_its_own_share(implementation, shape, per_element):
    real, fake = torch.randn(2, *shape).unbind()
    alpha = torch.rand(shape if per_element else shape[0])
    share = alpha if per_element else alpha.view(-1, 1)
    truth = fake.double() + share.double() * (real.double() - fake.double())
    torch.testing.assert_close(
        ops.interpolate(real, fake, alpha).double(), truth, rtol=1e-6, atol=1e-6
    )
