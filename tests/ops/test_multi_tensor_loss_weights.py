"""The op multi_tensor_loss: weights and masks of segments."""

from __future__ import annotations

import math

import pytest
import torch
import torch.utils.checkpoint
from loss_calls import SOFTPLUS, total
from oracle import (
    TRUTHS,
    assert_close,
    draw,
    plain_total,
)

from ganloss_fast.ops.terms import Segment

pytestmark = pytest.mark.every_implementation

INF = math.inf


@pytest.mark.parametrize("logit", [INF, -INF, math.nan])
@pytest.mark.parametrize("name", TRUTHS)
def test_a_weight_of_zero_removes_an_element_whatever_it_holds(implementation, name, logit):
    a = torch.tensor([0.3, logit, 0.3] * 7, requires_grad=True)
    weight = torch.tensor([1.0, 0.0, 1.0] * 7)
    value = total([Segment(a, TRUTHS[name].term, weight=weight)])
    kept = TRUTHS[name].value(torch.tensor(0.3, dtype=torch.float64)) * 2 / 3
    assert_close(value, kept, 1e-6)


@pytest.mark.parametrize("logit", [INF, -INF, math.nan])
@pytest.mark.parametrize("name", TRUTHS)
def test_a_removed_element_gets_no_gradient_of_any_order(implementation, name, logit):
    a = torch.tensor([0.3, logit, 0.3] * 7, requires_grad=True)
    weight = torch.tensor([1.0, 0.0, 1.0] * 7)
    segment = Segment(a, TRUTHS[name].term, weight=weight)
    (first,) = torch.autograd.grad(total([segment]), a, create_graph=True)
    second = torch.zeros_like(a)
    if first.requires_grad:  # not that of a linear term in plain PyTorch
        (second,) = torch.autograd.grad(first.sum(), a)
    assert not first[1::3].any()
    assert not second[1::3].any()
    assert first.isfinite().all()
    assert second.isfinite().all()


def test_weights_may_be_of_another_dtype(implementation):
    a = draw(40, dtype=torch.float16)
    weight = torch.rand(40)
    value = total([Segment(a, SOFTPLUS, weight=weight)])
    assert_close(value, plain_total([Segment(a.double(), SOFTPLUS, weight=weight)]), 1e-6)


@pytest.mark.launches_nothing(reason="refused before any kernel")
def test_weights_that_require_grad_are_refused(implementation):
    """None would flow; leaving it out silently would be wrong."""
    weight = torch.rand(3).requires_grad_()
    with pytest.raises((NotImplementedError, ValueError), match="weight"):
        total([Segment(draw(3).requires_grad_(), SOFTPLUS, weight=weight)])
