"""FLOPs of convolutions: either gradient takes those of the forward."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ganloss_fast.diagnose import CountFlops, diagnose

LAYERS = {
    "one group": nn.Conv2d(8, 16, 3, padding=1, stride=2),
    "groups": nn.Conv2d(8, 16, 3, padding=1, groups=8),
    "depthwise": nn.Conv1d(6, 6, 5, groups=6),
    "dilated": nn.Conv3d(4, 6, 2, dilation=2, groups=2),
    "transposed": nn.ConvTranspose2d(8, 12, 4, 2, 1),
    "transposed, groups": nn.ConvTranspose2d(8, 12, 4, 2, 1, groups=4),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_gradient_takes_the_flops_of_the_forward(name):
    layer = LAYERS[name]
    extents = {1: (9,), 2: (9, 8), 3: (5, 6, 7)}[layer.weight.dim() - 2]
    x = torch.randn(2, layer.in_channels, *extents, requires_grad=True)
    with CountFlops() as forward:
        y = layer(x)
    grid = (x if isinstance(layer, nn.ConvTranspose2d) else y).shape[2:]
    products = 2 * math.prod(grid) * layer.weight.numel()
    assert forward.total == 2 * products  # a multiplication and an addition each
    for wanted, times in (([x], 1), ([layer.weight], 1), ([x, layer.weight], 2)):
        with CountFlops() as backward:
            torch.autograd.grad(y.sum(), wanted, retain_graph=True)
        assert backward.total == times * forward.total


def test_a_diagnosis_counts_the_groups_of_a_critic_once():
    def critic(groups):
        return nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, groups=groups), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 8)
        )

    x = torch.randn(2, 8, 8, 8)
    assert diagnose(critic(8), x, quiet=True).cut < 6
