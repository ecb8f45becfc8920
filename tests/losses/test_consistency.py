"""Consistency regularisation: CR, bCR and both halves of zCR."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ganloss_fast as gf

pytestmark = pytest.mark.every_implementation


def leaves(count: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [torch.randn(3, 1, 4, 4, dtype=dtype).requires_grad_() for _ in range(count)]


def assert_same(ours: Tensor, plain: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(ours, plain)
    mine = torch.autograd.grad(ours, inputs)
    for a, b in zip(mine, torch.autograd.grad(plain, inputs)):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_values_and_gradients_are_mean_squares(implementation, dtype):
    a, b, c, d = inputs = leaves(4, dtype)
    assert_same(gf.consistency_loss(a, b), 10 * F.mse_loss(a, b), inputs[:2])
    ours = gf.consistency_loss([a, c], [b, d], weight=20.0)
    assert_same(ours, 20 * (F.mse_loss(a, b) + F.mse_loss(c, d)), inputs)
    ours = gf.balanced_consistency_loss(a, b, c, d, fake_weight=4.0)
    assert_same(ours, 10 * F.mse_loss(a, b) + 4 * F.mse_loss(c, d), inputs)
    assert_same(gf.latent_diversity_loss(a, b), -0.5 * F.mse_loss(a, b), inputs[:2])


def test_weights_may_be_tensors():
    a, b, c, d = leaves(4)
    w = torch.tensor(3.0)
    torch.testing.assert_close(gf.consistency_loss(a, b, weight=w), 3 * F.mse_loss(a, b))
    ours = gf.balanced_consistency_loss(a, b, c, d, real_weight=w)
    torch.testing.assert_close(ours, 3 * F.mse_loss(a, b) + 10 * F.mse_loss(c, d))
    torch.testing.assert_close(gf.latent_diversity_loss(a, b, weight=w), -3 * F.mse_loss(a, b))


def test_fifty_steps_are_those_of_the_plain_form():
    def trained(consistency) -> Tensor:
        torch.manual_seed(4)
        critic = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        optimizer = torch.optim.Adam(critic.parameters(), 1e-2)
        for _ in range(50):
            x = torch.randn(8, 4)
            optimizer.zero_grad()
            logits = critic(x)
            (F.softplus(-logits).mean() + consistency(logits, critic(x.flip(1)))).backward()
            optimizer.step()
        return nn.utils.parameters_to_vector(critic.parameters())

    ours, plain = trained(gf.consistency_loss), trained(lambda a, b: 10 * F.mse_loss(a, b))
    torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a, b: gf.consistency_loss(a, b[:2]), "changed_logits: expected the shape"),
        (lambda a, b: gf.consistency_loss([a], [b, b]), "changed_logits: expected as many"),
        (lambda a, b: gf.balanced_consistency_loss(a, b, a, b[:1]), "changed_fake"),
        (lambda a, b: gf.balanced_consistency_loss(a, b, a, b, real_weight=[]), "real_weight"),
        (lambda a, b: gf.latent_diversity_loss(a, b.long()), "changed_images"),
    ],
)
def test_wrong_calls_are_named(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call(*leaves(2))
