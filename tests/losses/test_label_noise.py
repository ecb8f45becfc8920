"""Noisy labels: their distribution, their seed, and the losses that take them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import ganloss_fast as gf


def test_labels_are_drawn_from_the_interval_and_a_share_is_flipped():
    logits = torch.zeros(20_000, 1)
    plain = gf.noisy_labels(logits, 0.7, 1.2)
    assert plain.shape == (20_000, 1)
    assert 0.7 <= plain.min() < 0.71 < 1.19 < plain.max() < 1.2
    torch.testing.assert_close(plain.mean(), torch.tensor(0.95), rtol=0.01, atol=0)
    flipped = gf.noisy_labels(logits, 0.7, 1.2, flip=0.05) < 0.5
    torch.testing.assert_close(flipped.float().mean(), torch.tensor(0.05), rtol=0.15, atol=0)
    assert torch.equal(gf.noisy_labels(logits, 1.0, 1.0, flip=1.0), torch.zeros(20_000, 1))


def test_a_generator_makes_them_repeatable():
    logits = torch.zeros(4, 1, 3, 3)
    draw = [
        gf.noisy_labels(logits, 0.0, 0.3, flip=0.5, rng=torch.Generator().manual_seed(5))
        for _ in range(2)
    ]
    assert torch.equal(*draw)
    assert draw[0].shape == (4, 1, 1, 1)
    assert gf.noisy_labels(logits, 0.0, 0.3, per="element").shape == logits.shape


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("per", ["sample", "element"])
def test_losses_take_them_values_and_gradients(dtype, per):
    """A label of 1.2 is a target above 1, for which BCE's formula holds as it stands."""
    real, fake = (torch.randn(5, 1, 3, 3).to(dtype).requires_grad_() for _ in range(2))
    a = gf.noisy_labels(real, 0.7, 1.2, flip=0.3, per=per)
    b = gf.noisy_labels(fake, 0.0, 0.3, flip=0.3, per=per)
    wide = [t.detach().to(a.dtype).requires_grad_() for t in (real, fake)]
    targets = [t.expand(real.shape) for t in (a, b)]
    for loss, plain in (
        (gf.BCE(a, b), F.binary_cross_entropy_with_logits),
        (gf.LeastSquares(a, b), F.mse_loss),
    ):
        ours = gf.discriminator_loss(real, fake, loss)
        truth = plain(wide[0], targets[0]) + plain(wide[1], targets[1])
        torch.testing.assert_close(ours, truth)
        mine = torch.autograd.grad(ours, (real, fake))
        for g, right in zip(mine, torch.autograd.grad(truth, wide)):
            # In half precision the gradients of both terms are rounded before they are added.
            slack = {"rtol": 0.016, "atol": 2e-4} if dtype == torch.bfloat16 else {}
            torch.testing.assert_close(g, right.to(dtype), **slack)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": 1.0, "high": 0.0}, "lower bound first"),
        ({"flip": 1.5}, "flip"),
        ({"per": "batch"}, "per"),
        ({"rng": 3}, "rng"),
        ({"logits": torch.zeros(())}, "0-d"),
        ({"logits": torch.zeros(3).long()}, "logits"),
        ({"high": float("nan")}, "high"),
    ],
)
def test_wrong_calls_are_named(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        gf.noisy_labels(**{"logits": torch.zeros(3, 1), "low": 0.0, "high": 1.0} | options)
