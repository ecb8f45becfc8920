"""The penalty of a critic of packs is CTGAN's, and what is no pack is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import ganloss_fast as gf


class Critic(nn.Module):
    """Packs its samples itself, as CTGAN's does."""

    def __init__(self, features: int, pac: int) -> None:
        super().__init__()
        self.width = features * pac
        self.layers = nn.Sequential(nn.Linear(self.width, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.reshape(-1, self.width))


def plain_penalty(critic: Critic, real: Tensor, fake: Tensor, pac: int) -> Tensor:
    """CTGAN: one alpha and one norm for each pack."""
    rows, features = real.shape
    alpha = torch.rand(rows // pac, 1, 1, dtype=torch.float32).to(real.dtype)
    alpha = alpha.expand(-1, pac, features).reshape(rows, features)
    x = alpha * real + (1 - alpha) * fake
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return 10 * (gradient.reshape(-1, pac * features).norm(2, dim=1) - 1).square().mean()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_value_and_gradients_are_ctgans(dtype):
    critic = Critic(6, 5).to(dtype)
    real, fake = torch.randn(2, 20, 6, dtype=dtype)
    alpha = torch.rand(4)
    draws = []
    for penalty in (
        lambda: plain_penalty(critic, real, fake, 5),
        lambda: gf.gradient_penalty(
            gf.PackedCritic(critic, 5),
            gf.packs(real, 5),
            gf.packs(fake, 5),
            alpha=alpha.to(dtype),
        ),
    ):
        torch.manual_seed(7)
        alpha.copy_(torch.rand(4, 1, 1).flatten())
        torch.manual_seed(7)
        value = penalty()
        weights = [p for p in critic.parameters() if p.dim() > 1]
        draws.append([value, *torch.autograd.grad(value, weights)])
    for plain, ours in zip(*draws):
        torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c, x: gf.packs(x, 3), "multiple of pac=3"),
        (lambda c, x: gf.packs(x.long(), 5), "samples"),
        (lambda c, x: gf.packs(x, 0), "pac"),
        (lambda c, x: gf.gradient_penalty(gf.PackedCritic(c, 5), x, x), "expected packs"),
        (
            lambda c, x: gf.r1_penalty(gf.PackedCritic(nn.Linear(6, 1), 5), gf.packs(x, 5)),
            "one row of logits",
        ),
        (lambda c, x: gf.PackedCritic(3, 5), "critic"),
    ],
)
def test_what_is_no_pack_is_refused(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call(Critic(6, 5), torch.randn(20, 6))


def test_both_sides_of_wgan_div_in_one_call():
    """PyTorch-GAN: k / 2 times the mean of |g_r|^p + |g_f|^p, with k = 2 and p = 6."""
    critic = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    real, fake = torch.randn(2, 5, 4, dtype=torch.float64)
    both = torch.cat([real, fake])
    # The mean over both halves is half of the sum of both means.
    ours = gf.gradient_penalty(critic, both, penalty="wgan-div", weight=2.0)
    plain = 0.0
    for x in (real.clone().requires_grad_(), fake.clone().requires_grad_()):
        (g,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
        plain = plain + g.square().sum(1).pow(3).mean()
    torch.testing.assert_close(ours, plain)
