"""Penalties in mixed precision: loss scales, half logits, float32 sums."""

from __future__ import annotations

import copy

import pytest
import torch
from critics import dcgan
from penalty_oracle import HostSync, assert_penalty, samples, small_critic
from torch import nn

import ganloss_fast as gf
from ganloss_fast.graph_cut import second_order


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.mark.parametrize("form", ["scaler", "tensor", "number"])
def test_inv_scale_changes_nothing_in_float32(form):
    critic = small_critic()
    x, _ = samples()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    inv_scale = {"scaler": scaler, "tensor": torch.tensor(1 / 1024), "number": 1 / 1024}[form]
    actual = gf.gradient_penalty(critic, x, at="real", inv_scale=inv_scale)
    wanted = gf.gradient_penalty(critic, x, at="real")
    assert_penalty(actual, wanted, critic, 3e-6)


def test_the_scale_is_not_read_on_the_host(monkeypatch):
    monkeypatch.setattr(second_order, "is_known_nonfinite", lambda signal: False)  # as on a GPU
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


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_a_half_fake_meets_a_float_real_in_float(half):
    """Under autocast the generator returns half precision and the data loader float32."""
    critic = small_critic()
    real, fake = samples()
    fake = fake.to(half)
    wanted = gf.gradient_penalty(critic, real, fake.float(), alpha=0.3)
    assert_penalty(gf.gradient_penalty(critic, real, fake, alpha=0.3), wanted, critic, 1e-7)
    assert gf.interpolate(fake, real, 0.3).dtype == torch.float32


# ---- the worked example of the README -----------------------------------------------------------


def train(half: torch.dtype | None, steps: int = 12):
    """WGAN-GP steps under autocast: the critic, its last penalty, how many steps it made."""
    torch.manual_seed(0)
    critic, generator = dcgan(8, 16), nn.Conv2d(3, 3, 1)
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.0, 0.9))
    made = []
    optimizer.register_step_post_hook(lambda *_: made.append(1))
    scaler = torch.amp.GradScaler("cpu", enabled=half == torch.float16)
    for _ in range(steps):
        real = torch.randn(4, 3, 16, 16)
        with torch.autocast("cpu", dtype=half, enabled=half is not None):
            fake = generator(torch.randn(4, 3, 16, 16)).detach()
            penalty = gf.gradient_penalty(critic, real, fake, alpha=0.5, inv_scale=scaler)
            loss = gf.discriminator_loss(critic(real), critic(fake), "wasserstein") + penalty
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    return critic, penalty.item(), len(made)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_wgan_gp_trains_in_mixed_precision(half):
    """With the scaler's default scale, 65536, which is inf in float16: it skips a first step."""
    critic, penalty, steps = train(half)
    assert all(parameter.isfinite().all() for parameter in critic.parameters())
    assert steps >= 10
    _, wanted, _ = train(None)
    assert penalty == pytest.approx(wanted, rel=0.05)
