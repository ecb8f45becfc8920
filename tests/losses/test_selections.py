"""What is done to logits, weights or batches around a loss: top-k, clipping, pools, samples."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ganloss_fast as gf


def leaf(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype).requires_grad_()


# ---- top-k -------------------------------------------------------------------------------------


def test_top_k_takes_the_share_that_imaginaire_takes():
    fake = leaf(3, 1, 3, 3)
    ours = gf.generator_loss(gf.top_k_logits(fake, 0.3), "hinge")
    plain = -fake.flatten().sort(descending=True).values[:9].mean()  # ceil(0.3 * 27)
    torch.testing.assert_close(ours, plain)
    (mine,), (right,) = torch.autograd.grad(ours, fake), torch.autograd.grad(plain, fake)
    torch.testing.assert_close(mine, right)


def test_top_k_of_every_sample_by_number_and_of_the_smallest():
    fake = leaf(3, 1, 3, 3)
    rows = fake.flatten(1).sort(1, descending=True).values
    assert torch.equal(gf.top_k_logits(fake, 0.3, per_sample=True), rows[:, :3])
    assert torch.equal(gf.top_k_logits(fake, 2, per_sample=True), rows[:, :2])
    smallest = fake.flatten().sort().values[:4]
    assert torch.equal(gf.top_k_logits(fake, 4, largest=False), smallest)
    assert gf.top_k_logits(leaf(3), 1.0, per_sample=True).shape == (3, 1)


@pytest.mark.parametrize("k", [0.0, 1.5, -1, 0, 10, True, "all", float("nan")])
def test_a_k_that_is_none_is_named(k):
    with pytest.raises((TypeError, ValueError), match="k:"):
        gf.top_k_logits(torch.zeros(9), k)


# ---- weight clipping ---------------------------------------------------------------------------


def test_weights_are_clamped_in_place():
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 1).double())
    expected = [p.detach().clamp(-0.1, 0.1) for p in model.parameters()]
    held = list(model.parameters())
    gf.clip_weights_(model, 0.1)
    assert all(torch.equal(p, e) for p, e in zip(held, expected))
    gf.clip_weights_(model.parameters(), 0.05)
    assert max(p.abs().max() for p in held) <= 0.05
    gf.clip_weights_([])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((nn.Linear(1, 1), 0.0), "limit"),
        ((torch.zeros(2),), "parameters"),
        (([1.0],), r"parameters\[0\]"),
        ((None,), "parameters"),
    ],
)
def test_wrong_weights_are_named(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        gf.clip_weights_(*arguments)


# ---- pooled means ------------------------------------------------------------------------------


def test_the_pool_holds_the_last_samples_and_this_batch():
    pool, held = gf.PooledMean(5), []
    for _ in range(4):
        logits = leaf(2, 1, 3, 3, dtype=torch.float32)
        held = [*held, *logits.detach()][-5:]
        mean = pool(logits)
        torch.testing.assert_close(mean, torch.stack(held).mean())
        assert not mean.requires_grad
    before = mean.clone()
    assert torch.equal(pool.eval()(logits), before)


def test_the_recipe_is_the_relativistic_loss_with_pooled_means():
    """DeblurGAN-v2's discriminator: both sides against the other side's pool, times 1/2."""
    real_mean, fake_mean = gf.PooledMean(50), gf.PooledMean(50)
    reals, fakes = [], []
    for _ in range(3):
        r, f = leaf(1, 1, 3, 3, dtype=torch.float32), leaf(1, 1, 3, 3, dtype=torch.float32)
        reals, fakes = [*reals, r.detach()], [*fakes, f.detach()]
        ours = gf.discriminator_loss(
            r - fake_mean(f),
            f - real_mean(r),
            gf.LeastSquares(1.0, -1.0),
            real_weight=0.5,
            fake_weight=0.5,
        )
        plain = (r - torch.cat(fakes).mean() - 1).square().mean()
        plain = 0.5 * (plain + (f - torch.cat(reals).mean() + 1).square().mean())
        torch.testing.assert_close(ours, plain)
        mine = torch.autograd.grad(ours, (r, f))
        for a, b in zip(mine, torch.autograd.grad(plain, (r, f))):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gf.PooledMean(0), "size"),
        (lambda: gf.PooledMean()(torch.zeros(())), "logits"),
        (lambda: gf.PooledMean()(torch.zeros(0, 1)), "logits"),
        (lambda: gf.PooledMean().eval()(torch.zeros(2)), "empty"),
    ],
)
def test_wrong_pools_are_named(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()


# ---- reduction="sample" ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_one_loss_for_each_sample(dtype):
    r, f = leaf(4, 1, 3, 3, dtype=dtype), leaf(4, 1, 3, 3, dtype=dtype)

    def by_sample(t: Tensor) -> Tensor:
        return t.reshape(4, -1).mean(1)

    real, fake = gf.discriminator_loss(r, f, "bce", fake_weight=0.5, reduction="sample")
    torch.testing.assert_close(real, by_sample(F.softplus(-r)))
    torch.testing.assert_close(fake, 0.5 * by_sample(F.softplus(f)))
    one = gf.generator_loss(f, gf.BCE(relativistic="paired"), real=r, reduction="sample")
    torch.testing.assert_close(one, by_sample(F.softplus(r - f)))
    sides = gf.discriminator_side_loss([r, r[:, 0]], False, "hinge", reduction="sample")
    for side in sides:
        torch.testing.assert_close(side, by_sample(F.relu(1 + r)))
    assert torch.equal(gf.generator_loss(f[:, 0, 0, 0], "wgan", reduction="sample"), -f[:, 0, 0, 0])
    weights = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=dtype)
    (mine,) = torch.autograd.grad(real, r, weights)
    (plain,) = torch.autograd.grad(by_sample(F.softplus(-r)), r, weights)
    torch.testing.assert_close(mine, plain)


def test_samples_do_not_combine_with_sums_over_outputs():
    with pytest.raises(ValueError, match="output_reduction"):
        gf.generator_loss([torch.zeros(2)], "bce", reduction="sample", output_reduction="mean")
    with pytest.raises(ValueError, match="0-d"):
        gf.generator_loss(torch.zeros(()), "bce", reduction="sample")
