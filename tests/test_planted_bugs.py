"""The suite can fail: each shared assertion catches the bug that it is there for.

The bugs are the ones that happened to others: sums in thread order, z - logsigmoid(z), an op
whose list arguments get no gradient, and a second-order term that is dropped.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from oracle import (
    TRUTHS,
    assert_bitwise_repeatable,
    assert_close,
    assert_gradients_match,
    assert_no_worse,
    assert_tail_is_kept,
    draw,
    draw_segment,
    plain_total,
    relative_error,
)
from test_bad_input import EVERYTHING

from ganloss_fast import ops
from ganloss_fast.losses import table
from ganloss_fast.ops import terms
from ganloss_fast.ops.terms import Segment


def caught():
    return pytest.raises(AssertionError)


def softplus_of(loss):
    """Softplus of each point by a loss over segments."""
    return lambda z: torch.stack([loss([Segment(x, terms.softplus(1.0))]) for x in z])


# ---- tails -------------------------------------------------------------------------------------


def test_a_softplus_that_cancels_is_caught():
    with caught():
        assert_tail_is_kept(lambda z: z - torch.nn.functional.logsigmoid(z))


def test_a_softplus_that_overflows_is_caught():
    with caught():
        assert_tail_is_kept(lambda z: torch.log(1 + torch.exp(z)))


def test_the_softplus_of_the_package_is_not():
    assert_tail_is_kept(softplus_of(lambda segments: ops.multi_tensor_loss(segments).total))


# ---- determinism -------------------------------------------------------------------------------


def test_a_sum_in_the_order_of_the_threads_is_caught():
    x = draw(100_003)

    def sum_of_shares():
        shares = x.chunk(torch.get_num_threads())
        return [sum(share.cumsum(0)[-1] for share in shares)]

    with caught():
        assert_bitwise_repeatable(sum_of_shares)


def test_a_sum_in_another_order_each_run_is_caught():
    x = draw(100_003)

    def sum_of_shuffled():
        return [x[torch.randperm(x.numel())].sum()]

    with caught():
        assert_bitwise_repeatable(sum_of_shuffled)


def test_a_sign_of_zero_that_changes_is_caught():
    zeros = iter([0.0, -0.0, 0.0, -0.0])
    with caught():
        assert_bitwise_repeatable(lambda: [torch.tensor(next(zeros))])


# ---- gradients ---------------------------------------------------------------------------------


def some_segments() -> list[Segment]:
    names = ("softplus(z)", "(z - 0.7)^2")
    return [draw_segment(TRUTHS[n].term, "w, a - b", (7,), torch.float64, 1.5) for n in names]


def without_gradient_of_lists(segments):
    """What an op whose Tensor[] has no autograd formula does."""
    return plain_total([s._replace(a=s.a.detach(), b=s.b.detach()) for s in segments])


def without_gradient_of_b(segments):
    return plain_total([s._replace(b=s.b.detach()) for s in segments])


def without_gradient_of_the_last(segments):
    *rest, last = segments
    return plain_total([*rest, last._replace(a=last.a.detach())])


def with_gradients_of_b_unnegated(segments):
    mirrored = [s._replace(b=2 * s.b.detach() - s.b) for s in segments]
    return plain_total(mirrored)


def with_weights_only_in_the_forward(segments):
    bare = plain_total([s._replace(weight=None) for s in segments])
    return plain_total(segments).detach() + bare - bare.detach()


class WithoutSecondOrder(torch.autograd.Function):
    """The first-order gradient as a constant: the classic of compiled autograd.Functions."""

    @staticmethod
    def forward(context, loss, slope, a):
        context.save_for_backward(slope)
        return loss

    @staticmethod
    def backward(context, grad):
        return None, None, grad * context.saved_tensors[0]


def without_second_order(segments):
    a = segments[0].a
    rest = plain_total(segments[1:])
    with torch.enable_grad():
        first = plain_total([segments[0]._replace(b=segments[0].b.detach())])
        (slope,) = torch.autograd.grad(first, a)
    bare = plain_total([segments[0]._replace(a=a.detach())])
    return WithoutSecondOrder.apply(bare.detach(), slope, a) + bare - bare.detach() + rest


PLANTED = [
    without_gradient_of_lists,
    without_gradient_of_b,
    without_gradient_of_the_last,
    with_gradients_of_b_unnegated,
    with_weights_only_in_the_forward,
    without_second_order,
]


@pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: bug.__name__)
def test_a_gradient_that_is_wrong_is_caught(bug):
    with caught():
        assert_gradients_match(bug, some_segments(), 1e-6)


def test_the_gradients_of_the_formula_are_not():
    assert_gradients_match(plain_total, some_segments(), 1e-12)


# ---- comparisons -------------------------------------------------------------------------------


def test_a_missing_nan_is_no_small_error():
    nan, one = torch.tensor([float("nan")]), torch.ones(1)
    assert relative_error(nan, one) == relative_error(one, nan) == float("inf")
    assert relative_error(nan, nan) == 0


def test_an_error_beside_an_infinity_is_not_hidden_by_it():
    infinite = torch.tensor([float("inf"), 1.0])
    assert relative_error(infinite, infinite) == 0
    assert relative_error(torch.tensor([float("inf"), 2.0]), infinite) == 1
    assert relative_error(-infinite, infinite) == float("inf")


def test_a_broadcast_result_is_caught():
    with caught():
        assert_close(torch.ones(3, 1), torch.ones(3), 1.0)


def test_half_precision_sums_are_caught():
    x = draw(1009, dtype=torch.float16).abs()
    truth = x.double().mean()
    with caught():
        assert_no_worse(x.mean().float(), x.float().mean(), truth, 1e-6)


# ---- tests that do not run ---------------------------------------------------------------------


def test_a_skip_is_a_failure_where_nothing_may_be_skipped():
    """test_triton_guard.py skips itself without TRITON_INTERPRET=1."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    guard = Path(__file__).parent / "ops" / "test_triton_guard.py"
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "--no-skips", guard],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    assert "test_triton_guard.py did not run" in result.stdout


# ---- bad input ---------------------------------------------------------------------------------


def test_a_loss_that_broadcasts_would_be_caught(monkeypatch):
    """The table of bad input fails as soon as the check of a label map is gone."""
    bad = EVERYTHING["options: a least-squares label map of another shape"]
    monkeypatch.setattr(
        table, "_label_map", lambda name, label, logits: label[:1].expand_as(logits)
    )
    with pytest.raises(pytest.fail.Exception), pytest.raises(bad.error):
        bad.call()


def test_an_op_that_reads_another_term_would_be_caught(monkeypatch, native):
    wrong = SimpleNamespace(total=plain_total(some_segments()))
    monkeypatch.setattr(ops, "multi_tensor_loss", lambda segments: wrong)
    with caught():
        assert_gradients_match(
            lambda segments: ops.multi_tensor_loss(segments).total.detach(), some_segments(), 1e-6
        )
