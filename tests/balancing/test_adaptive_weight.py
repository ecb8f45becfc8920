"""balanced_backward with the adaptive weight of VQGAN: the step of a trainer, to rounding."""

from __future__ import annotations

import pytest
import torch
from image_tokenizers import ConvTokenizer, PatchTokenizer
from tokenizer_training import (
    TOLERANCE,
    Trainer,
    assert_close,
    norm_ratio,
    written_out,
)
from torch import nn

import ganloss_fast as gf


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("tokenizer", [ConvTokenizer, PatchTokenizer])
def test_the_step_is_that_of_two_gradients_and_a_backward_of_the_sum(tokenizer, dtype):
    theirs, ours = Trainer(tokenizer, dtype), Trainer(tokenizer, dtype)
    weight, total = written_out(theirs)
    nll, g, codebook, images = ours.losses()
    balance = gf.balanced_backward(
        [nll, g],
        images,
        ours.tokenizer.last.weight,
        weights=[1.0, 0.5],
        extra_loss=codebook,
        loss_parameters=[ours.logvar],
    )
    assert_close(ours.gradients(), theirs.gradients(), TOLERANCE[dtype])
    assert_close(
        [balance.weights, balance.total],
        [torch.stack([torch.ones_like(weight), weight]), total],
        TOLERANCE[dtype],
    )
    assert all(p.grad is None for p in ours.critic.parameters())
    assert not any(t.requires_grad for t in balance[:3])
    assert balance.averages is None


def test_gradients_are_added_to_what_is_there():
    trainer = Trainer(ConvTokenizer, torch.float64)
    single = []
    for _ in range(2):
        nll, g, _, images = trainer.losses()
        gf.balanced_backward([nll, g], images, trainer.tokenizer.last.weight)
        single.append([p.grad.clone() for p in trainer.tokenizer.parameters()])
    assert_close(single[1], [2 * gradient for gradient in single[0]], 1e-13)


@pytest.mark.parametrize("weight", [0.25, torch.tensor(0.25), torch.tensor(0.25).double()])
def test_a_weight_may_be_a_tensor_that_changes_by_the_step(weight):
    trainer = Trainer(ConvTokenizer, torch.float64)
    nll, g, _, images = trainer.losses()
    balance = gf.balanced_backward(
        {"nll": nll, "g": g}, images, trainer.tokenizer.last.weight, weights={"g": weight, "nll": 1}
    )
    last = trainer.tokenizer.last.weight
    nll, g, _, images = trainer.losses()
    ratio = norm_ratio(*(torch.autograd.grad(x, last, retain_graph=True)[0] for x in (nll, g)))
    assert_close([balance.weights[1]], [0.25 * ratio], 1e-12)


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        (gf.AdaptiveWeight(), lambda a, b: (a / (b + 1e-4)).clamp(0, 1e4)),
        (gf.AdaptiveWeight(largest=0.5), lambda a, b: (a / (b + 1e-4)).clamp(0, 0.5)),
        (
            gf.AdaptiveWeight(epsilon=1e-8, epsilon_as="floor"),
            lambda a, b: (a / b.clamp(min=1e-8)).clamp(max=1e4),
        ),
        (gf.AdaptiveWeight(epsilon=1e3, epsilon_as="floor"), lambda a, b: a / 1e3),
    ],
)
def test_the_ratio_is_bounded_as_the_rule_says(rule, wanted):
    x = torch.randn(2, 3, dtype=torch.float64)
    model = nn.Linear(3, 3).double()
    y = model(x)
    losses = [y.square().mean(), (3 * y).sum()]
    norms = [torch.autograd.grad(x, model.weight, retain_graph=True)[0].norm() for x in losses]
    balance = gf.balanced_backward(losses, y, model.weight, rule=rule)
    assert_close([balance.norms, balance.weights[1]], [torch.stack(norms), wanted(*norms)], 1e-12)


def test_a_single_loss_is_its_own_backward():
    """A trainer before disc_start, when there is no adversarial loss."""
    trainer = Trainer(ConvTokenizer, torch.float64)
    nll, _, codebook, images = trainer.losses()
    balance = gf.balanced_backward(
        [nll], images, trainer.tokenizer.last.weight, extra_loss=codebook
    )
    ours = [p.grad.clone() for p in trainer.tokenizer.parameters()]
    trainer.tokenizer.zero_grad()
    nll, _, codebook, _ = trainer.losses()
    (nll + codebook).backward()
    assert_close(ours, [p.grad for p in trainer.tokenizer.parameters()], 1e-13)
    assert balance.weights.tolist() == [1.0]


def test_a_constant_extra_loss_counts_in_the_total_alone():
    y = nn.Linear(2, 2)(torch.ones(1, 2))
    balance = gf.balanced_backward([y.sum()], y, extra_loss=torch.tensor(7.0))
    assert torch.allclose(balance.total, y.sum() + 7)
