"""balanced_backward with shares of a total norm: the balancer of EnCodec."""

from __future__ import annotations

import torch
from tokenizer_training import (
    assert_close,
)
from torch import nn

import ganloss_fast as gf


def test_shares_of_a_total_norm_are_those_of_the_published_formula():
    """Three steps, so that the averages have a past."""
    torch.manual_seed(0)
    model, x = nn.Linear(5, 5).double(), torch.randn(4, 5, dtype=torch.float64)
    wanted, decay, total_norm = {"l1": 0.1, "adv": 4.0}, 0.9, 1.5
    sums, counts = dict.fromkeys(wanted, 0.0), dict.fromkeys(wanted, 0.0)
    averages = None
    for step in range(3):

        def losses(y, step=step):
            return {"adv": y.square().mean() * (step + 1), "l1": y.abs().mean()}

        y = model(x)
        gradients = {
            name: torch.autograd.grad(loss, y, retain_graph=True)[0]
            for name, loss in losses(y).items()
        }
        combined = torch.zeros_like(y)
        scales = {}
        for name, gradient in gradients.items():
            sums[name] = decay * sums[name] + gradient.norm(dim=1).mean()
            counts[name] = decay * counts[name] + 1
            scales[name] = wanted[name] / 4.1 * total_norm / (1e-12 + sums[name] / counts[name])
            combined += scales[name] * gradient
        (theirs,) = torch.autograd.grad(y, model.weight, combined)

        y, model.weight.grad = model(x), None
        balance = gf.balanced_backward(
            losses(y),
            y,
            weights=wanted,
            rule=gf.GradientShares(total_norm=total_norm, decay=decay),
            averages=averages,
        )
        averages = balance.averages
        assert_close([model.weight.grad], [theirs], 1e-13)
        assert_close([balance.weights], [torch.stack(list(scales.values()))], 1e-13)


def test_norms_of_whole_gradients_may_be_shared_at_the_last_layer():
    model, x = nn.Linear(3, 3).double(), torch.randn(4, 3, dtype=torch.float64)
    y = model(x)
    losses = [y.square().mean(), y.sum()]
    norms = [
        torch.autograd.grad(loss, model.weight, retain_graph=True)[0].norm() for loss in losses
    ]
    rule = gf.GradientShares(per_sample=False)
    balance = gf.balanced_backward(losses, y, model.weight, rule=rule)
    assert_close([balance.weights], [0.5 / torch.stack(norms)], 1e-10)


def test_an_overflow_leaves_the_averages_as_they_were():
    model, x = nn.Linear(3, 3), torch.randn(4, 3)
    rule, averages = gf.GradientShares(), None
    seen = []
    for factor in (1.0, float("inf"), 1.0):
        y = model(x)
        balance = gf.balanced_backward([factor * y.sum()], y, rule=rule, averages=averages)
        averages = balance.averages
        seen.append(averages.means())
    assert torch.equal(seen[0], seen[1])
    assert torch.allclose(seen[0], seen[2])
