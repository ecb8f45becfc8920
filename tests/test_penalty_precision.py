"""Penalties in mixed precision: loss scales, half logits, float32 sums."""

from __future__ import annotations

import copy

import pytest
import torch
from penalty_oracle import HostSync, assert_penalty, samples, small_critic

import ganloss_fast as gf
from ganloss_fast import graph_cut


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.mark.parametrize("form", ["scaler", "tensor", "number"])
def test_inv_scale_changes_nothing_in_float32(form):
    critic = small_critic()
    x, _ = samples()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    inv_scale = {"scaler": scaler, "tensor": torch.tensor(1 / 1024), "number": 1 / 1024}[form]
    actual = gf.gradient_penalty(critic, x, sampling="real", inv_scale=inv_scale)
    wanted = gf.gradient_penalty(critic, x, sampling="real")
    assert_penalty(actual, wanted, critic, 3e-6)


def test_the_scale_is_not_read_on_the_host(monkeypatch):
    monkeypatch.setattr(graph_cut, "is_known_nonfinite", lambda signal: False)  # as on a GPU
    critic = small_critic()
    x, _ = samples()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(torch.ones(()))  # creates the scale
    with HostSync(), gf.use_backend("reference"):
        gf.r1_penalty(critic, x, inv_scale=scaler).backward()


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_a_worked_autocast_example_stays_finite_and_right(half):
    """Gradients of 1e-6 vanish in float16 unless the logits are scaled."""
    critic = small_critic()
    critic[2].weight.data.mul_(1e-4)
    x, _ = samples()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, enabled=half == torch.float16)
    optimizer = torch.optim.SGD(critic.parameters(), lr=0.0)
    with torch.autocast("cpu", dtype=half):
        penalty = gf.r1_penalty(critic, x, weight=1e4, inv_scale=scaler)
    scaler.scale(penalty).backward()
    scaler.unscale_(optimizer)
    wanted = copy.deepcopy(critic).double()
    wanted.zero_grad()
    gf.r1_penalty(wanted, x.double(), weight=1e4).backward()
    assert penalty.dtype == torch.float32
    for ours, theirs in zip(critic.parameters(), wanted.parameters(), strict=True):
        if theirs.grad is not None and theirs.grad.any():
            assert ours.grad.isfinite().all()
            error = (ours.grad - theirs.grad).abs().max() / theirs.grad.abs().max()
            assert error < 0.05


def test_squares_are_accumulated_in_float32():
    """3 * 256 * 256 ones: their squares overflow a float16 sum."""
    for dtype in (torch.float16, torch.bfloat16):
        gradient = torch.ones(1, 3, 256, 256, dtype=dtype)
        penalty = gf.penalty_from_grads(gradient, weight=1.0)
        assert penalty.item() == 3 * 256 * 256
