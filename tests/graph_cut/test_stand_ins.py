"""Nodes that stand in for stock autograd's prove themselves, and a wrong one stays out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from convolutions import CountConvolutions
from torch import nn

import ganloss_fast as gf
from ganloss_fast import backends
from ganloss_fast.diagnose import CountFlops
from ganloss_fast.graph_cut import stand_ins

pytestmark = pytest.mark.skipif(not backends.HAS_NATIVE, reason="needs the native extension")

if backends.HAS_NATIVE:
    from ganloss_fast import _C

CONSTANT, FAST = stand_ins.STAND_INS


@pytest.fixture
def unproven():
    """Before and after the test, as in a new process."""
    stand_ins.proven_stand_in.cache_clear()
    yield
    stand_ins.proven_stand_in.cache_clear()


@pytest.mark.parametrize("stand_in", stand_ins.STAND_INS, ids=lambda stand_in: stand_in.node)
def test_every_stand_in_proves_itself_on_this_torch(stand_in):
    assert stand_ins.stand_in_holds(stand_in)


FAULTS = {
    "a sign": lambda v: -v,
    "one bit of it": lambda v: v * (1 + torch.finfo(v.dtype).eps),
    "another sample": lambda v: v.flip(0),
    "nothing": torch.zeros_like,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_stand_in_fails_its_proof(fault, monkeypatch):
    """One that sends on something else of what comes in."""
    right = _C.under_stand_in

    def wrong(gradient, node):
        gradient = right(gradient, node)
        gradient.register_hook(FAULTS[fault])
        return gradient

    monkeypatch.setattr(stand_ins._C, "under_stand_in", wrong)
    assert not stand_ins.stand_in_holds(CONSTANT)
    if fault != "one bit of it":  # within rounding
        assert not stand_ins.stand_in_holds(FAST)


def test_one_that_cannot_be_taken_fails_its_proof():
    assert not stand_ins.stand_in_holds(CONSTANT._replace(learns=True))
    assert not stand_ins.stand_in_holds(FAST._replace(learns=False))


def blur_penalty(channels: int, graph_cut: str) -> torch.Tensor:
    gain = torch.ones(channels, 1, 1, requires_grad=True)
    weight = torch.rand(channels, 1, 3, 3)

    def critic(x):
        return F.conv2d((x * gain).relu(), weight, groups=channels).square().sum((1, 2, 3))

    x = torch.randn(2, channels, 6, 6)
    return gf.r1_penalty(critic, x, how=gf.Differentiation(graph_cut=graph_cut))


def backward_convolutions(penalty: torch.Tensor) -> int:
    with CountConvolutions() as count:
        penalty.backward()
    return count.total


@pytest.mark.parametrize("graph_cut", ["auto", "fast"])
def test_one_that_fails_stays_out_with_a_warning(graph_cut, monkeypatch, unproven):
    monkeypatch.setattr(stand_ins, "stand_in_holds", lambda _: False)
    with pytest.warns(UserWarning, match="leaves convolutions with a constant weight"):
        penalty = blur_penalty(16, graph_cut)
    assert backward_convolutions(penalty) == backward_convolutions(blur_penalty(16, "off"))


def test_a_learning_weight_stays_with_stock_where_its_stand_in_fails(monkeypatch, unproven):
    monkeypatch.setattr(stand_ins, "stand_in_holds", lambda stand_in: stand_in is not FAST)
    critic = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 1, 3))
    x = torch.randn(2, 3, 8, 8)
    with pytest.warns(UserWarning, match="leaves convolutions with a learning weight"):
        penalty = gf.r1_penalty(critic, x, how=gf.Differentiation(graph_cut="fast"))
    with CountConvolutions() as count:
        penalty.backward()
    assert count.calls["convolution_backward"] == 0


def test_a_process_proves_a_stand_in_once_and_only_when_it_meets_one(monkeypatch, unproven):
    proofs = []
    holds = stand_ins.stand_in_holds
    monkeypatch.setattr(
        stand_ins, "stand_in_holds", lambda stand_in: proofs.append(stand_in) or holds(stand_in)
    )
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 1, 3))
    gf.r1_penalty(layers, torch.randn(2, 3, 8, 8)).backward()
    assert proofs == []
    for _ in range(2):
        blur_penalty(4, "auto").backward()
    assert proofs == [CONSTANT]


def test_the_proof_is_blind_to_the_callers_modes(unproven):
    state = torch.get_rng_state()
    with torch.no_grad(), CountFlops() as counter, torch.autocast("cpu", torch.bfloat16):
        assert all(stand_ins.proven_stand_in(s.node) for s in stand_ins.STAND_INS)
    assert counter.total == 0
    assert torch.equal(state, torch.get_rng_state())
