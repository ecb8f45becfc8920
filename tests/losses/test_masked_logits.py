"""Logits that a critic masks with -inf: on the CPU, stock autograd's finite penalty."""

from __future__ import annotations

import by_keyword
import pytest
import torch
from penalty_oracle import assert_penalty
from torch import nn

import ganloss_fast as gf

OPTIONS = [
    {},
    {"graph_cut": "fast"},
    {"graph_cut": "off"},
    {"chunk_size": 2},
    {"zero_grads": "all"},
    {"zero_grads": "none"},
    {"zero_grads": "all", "graph_cut": "fast"},
    {"zero_grads": "all", "chunk_size": 2},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_penalty_is_that_of_plain_pytorch(options):
    critic = nn.Sequential(nn.Linear(4, 4), nn.LeakyReLU(0.2), nn.Linear(4, 1)).double()
    x, padding = torch.randn(3, 5, 4, dtype=torch.float64), torch.zeros(3, 5, dtype=torch.bool)
    padding[:, 3:] = True

    def masked(z, rows):
        return critic(z)[..., 0].masked_fill(rows, float("-inf"))

    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(masked(leaf, padding).sum(), leaf, create_graph=True)
    wanted = 5 * gradient.flatten(1).square().sum(1).mean()
    penalty = by_keyword.r1_penalty(masked, x, critic_args=(padding,), **options)
    assert_penalty(penalty, wanted, critic, 1e-12)


def test_all_gives_every_parameter_a_gradient():
    critic = nn.Sequential(nn.Linear(4, 4), nn.LeakyReLU(0.2), nn.Linear(4, 1)).double()
    rows = torch.tensor([False, True, False])
    masked = lambda z: critic(z)[:, 0].masked_fill(rows, float("-inf"))  # noqa: E731
    gf.r1_penalty(
        masked, torch.randn(3, 4).double(), how=gf.Differentiation(zero_grads="all")
    ).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in critic.parameters())
