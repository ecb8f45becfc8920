"""The loss functions of rosinality's StyleGAN2."""

from __future__ import annotations

import math

import pytest
import torch
from image_codebases import (
    DTYPES,
    Generator,
    Labelled,
    assert_near,
    assert_same,
    assert_same_parameters_of,
    assert_trains_alike,
    images,
    logits,
    seeded,
)
from torch.nn import functional as F

from ganloss_fast.compat.stylegan2_rosinality import (
    d_logistic_loss,
    d_r1_loss,
    g_nonsaturating_loss,
    g_path_regularize,
)


def softplus(x):
    return F.softplus(x, threshold=40)


def plain_d(real, fake):
    return softplus(-real).mean() + softplus(fake).mean()


def plain_g(fake):
    return softplus(-fake).mean()


def plain_r1(pred, real):
    (g,) = torch.autograd.grad(pred.sum(), real, create_graph=True)
    return g.pow(2).reshape(g.shape[0], -1).sum(1).mean()


def plain_path_length(x, ws, mean, decay=0.01):
    noise = torch.randn_like(x) / math.sqrt(x.shape[2] * x.shape[3])
    (g,) = torch.autograd.grad((x * noise).sum(), ws, create_graph=True)
    lengths = torch.sqrt(g.pow(2).sum(2).mean(1))
    new_mean = mean + decay * (lengths.mean() - mean)
    return (lengths - new_mean).pow(2).mean(), new_mean.detach(), lengths


@pytest.mark.parametrize("dtype", DTYPES)
def test_both_losses_are_the_formulas(dtype):
    real, fake = logits(6, 1, dtype=dtype), logits(5, 1, dtype=dtype, seed=1)
    assert_same(d_logistic_loss, plain_d, real, fake)
    assert_same(g_nonsaturating_loss, plain_g, fake)


class Styled(Generator):
    """Images from latents [B, 3, 4]."""

    def forward(self, ws):
        return super().forward(ws.sum(1)) * ws.square().mean()


@pytest.mark.parametrize("mean", [0, torch.tensor(0.4, dtype=torch.float64)])
def test_path_length_is_the_formula_in_rosinalitys_order(mean):
    def of(function):
        def penalty(net):
            ws = logits(4, 3, 4)
            results.append(function(net(ws), ws, mean))
            return results[-1][0]

        return penalty

    results = []
    assert_same_parameters_of(of(g_path_regularize), of(plain_path_length), seeded(Styled))
    assert type(results[0]) is tuple
    for ours, plain in zip(results[0][1:], results[1][1:], strict=True):
        assert_near(ours, plain, 1e-12)
        assert not ours.requires_grad


def step_with(d_loss, r1_loss, g_loss):
    """Its trainer: R1 in the same step, times 16 r1 / 2, with a zero that keeps the last bias."""

    def step(G, D, real, z):
        fake = G(z)
        real = real.requires_grad_()
        real_pred = D(real)
        loss = d_loss(real_pred, D(fake.detach()))
        penalty = 0.2 / 2 * r1_loss(real_pred, real) * 16 + 0 * real_pred[0]
        return loss + penalty, lambda: g_loss(D(fake))

    return step


def test_fifty_steps_train_alike():
    assert_trains_alike(
        step_with(d_logistic_loss, d_r1_loss, g_nonsaturating_loss),
        step_with(plain_d, plain_r1, plain_g),
        Labelled,
    )


def test_r1_of_images_that_require_no_grad_is_explained():
    D = seeded(Labelled)
    with pytest.raises(ValueError, match=r"requires_grad_\(\) before the critic"):
        d_r1_loss(D(images()), images())
