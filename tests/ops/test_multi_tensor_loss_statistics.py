"""The op multi_tensor_loss: statistics of the logits."""

from __future__ import annotations

import math

import pytest
import torch
import torch.utils.checkpoint
from layouts import LAYOUTS
from loss_calls import SOFTPLUS
from oracle import (
    DTYPES,
    draw,
    draw_segment,
)

from ganloss_fast import ops
from ganloss_fast.ops.terms import Segment

pytestmark = [pytest.mark.every_implementation, pytest.mark.order_of_threads]

INF = math.inf


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_statistics_are_those_of_torch(implementation, dtype, shift):
    segments = [Segment((draw(*shape) + shift).to(dtype), SOFTPLUS) for shape in ((1,), (5000,))]
    segments.append(Segment(LAYOUTS["expanded"](dtype), SOFTPLUS))
    statistics = ops.multi_tensor_loss(segments, with_statistics=True).statistics
    for segment, row in zip(segments, statistics):
        x = segment.a.double()
        expected = [x.mean(), x.std(correction=0), x.sign().mean(), x.new_zeros(())]
        torch.testing.assert_close(row.double(), torch.stack(expected), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("position", [0, 33_333, 199_999])
@pytest.mark.parametrize("outlier", [1e3, 1e5])
def test_an_outlier_costs_the_other_elements_no_digits(implementation, outlier, position):
    """Counted from the outlier, every deviation is as large: 106 for 100 in float32."""
    logits = draw(200_000, scale=1.0)
    logits[position] = outlier
    row = ops.multi_tensor_loss([Segment(logits, SOFTPLUS)], True).statistics[0].double()
    x = logits.double()
    expected = torch.stack([x.mean(), x.std(correction=0)])
    torch.testing.assert_close(row[:2], expected, rtol=2e-5, atol=1e-6)


def test_statistics_count_what_is_not_finite(implementation):
    logits = draw(5000)
    logits[[3, 4094, 4096, 4999]] = torch.tensor([INF, -INF, math.nan, INF])
    row = ops.multi_tensor_loss([Segment(logits, SOFTPLUS)], True).statistics[0]
    assert row[3] == 4


@pytest.mark.parametrize("position", [0, 7])
def test_the_mean_statistic_of_an_infinite_logit_is_infinite(implementation, position):
    logits = draw(100)
    logits[position] = INF
    row = ops.multi_tensor_loss([Segment(logits, SOFTPLUS)], True).statistics[0]
    assert row[0] == INF


def test_statistics_are_detached_and_leave_the_loss_as_it_is(implementation):
    segments = [draw_segment(SOFTPLUS, "w, a - b", (77,), torch.float32)]
    plain, detailed = (ops.multi_tensor_loss(segments, flag) for flag in (False, True))
    assert not detailed.statistics.requires_grad
    assert torch.equal(plain.total, detailed.total)
    assert torch.equal(plain.values, detailed.values)
