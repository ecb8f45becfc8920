"""diffusers' VQGAN script: its penalty, and its adaptive weight in one backward."""

from __future__ import annotations

import pytest
import torch
from drop_in_cases import DTYPES, TOLERANCE, assert_training_agrees
from torch import nn

import ganloss_fast as gf
from ganloss_fast.compat import diffusers


def gradient_penalty(images, output, weight=10):
    (gradient,) = torch.autograd.grad(
        output, images, torch.ones_like(output), create_graph=True, retain_graph=True
    )
    return weight * ((gradient.reshape(len(images), -1).norm(2, dim=1) - 1) ** 2).mean()


def critic() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 3))


@pytest.mark.parametrize("weight", [{}, {"weight": 3.0}], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_penalty_is_that_of_the_formula(dtype, weight):
    images = torch.rand(2, 3, 8, 8, dtype=dtype)
    results = []
    for penalty in (diffusers.gradient_penalty, gradient_penalty):
        model, leaf = critic().to(dtype), images.clone().requires_grad_()
        value = penalty(leaf, model(leaf), **weight)
        weights = [model[0].weight, model[2].weight]
        results.append([value, *torch.autograd.grad(value, weights)])
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs, rtol=10 * TOLERANCE[dtype], atol=1e-6)


def test_the_gradient_of_a_layer_is_detached_and_the_graph_kept():
    layer = nn.Linear(3, 3)
    loss = layer(torch.randn(4, 3)).square().mean()
    gradient = diffusers.grad_layer_wrt_loss(loss, layer.weight)
    assert not gradient.requires_grad
    assert layer.weight.grad is None
    loss.backward()
    assert torch.equal(gradient, layer.weight.grad)


def test_fifty_steps_agree_with_one_backward():
    """The generator's loss is measured by the perceptual one; that of pixels is only added."""

    def losses(model, judge, images):
        found = model(images)
        perceptual = (found.cos() - images.cos()).square().mean()
        return perceptual, -judge(found).mean(), (found - images).square().mean(), found

    def plain(model, judge, of_model, of_judge, images):
        perceptual, g, pixels, _ = losses(model, judge, images)
        first, second = (
            diffusers.grad_layer_wrt_loss(loss, model.weight).norm(p=2) for loss in (perceptual, g)
        )
        weight = (first / second.clamp(min=1e-8)).clamp(max=1e4)
        of_model.zero_grad()
        (pixels + perceptual + weight * g).backward()
        of_model.step()

    def ours(model, judge, of_model, of_judge, images):
        perceptual, g, pixels, found = losses(model, judge, images)
        of_model.zero_grad()
        rule = gf.AdaptiveWeight(epsilon=1e-8, epsilon_as="floor")
        gf.balanced_backward([perceptual, g], found, model.weight, rule=rule, extra_loss=pixels)
        of_model.step()

    torch.manual_seed(0)
    networks = nn.Conv2d(3, 3, 3, padding=1), critic()
    assert_training_agrees(
        ours, plain, networks, lambda draws: (torch.rand(2, 3, 8, 8, generator=draws),)
    )
