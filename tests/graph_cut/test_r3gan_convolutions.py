"""Convolution calls of R3GAN's discriminator step, at its published sizes, on the meta device."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from convolutions import CountConvolutions
from torch import Tensor, nn

import ganloss_fast as gf
from ganloss_fast import backends

pytestmark = pytest.mark.skipif(not backends.HAS_NATIVE, reason="needs the native extension")

# CIFAR-10 at 32 pixels: four stages of two blocks.
WIDTHS, GROUPS, BLOCKS, EXPANSION, SIZE = (768, 768, 768, 768), (96, 96, 96, 96), 2, 2, 32


class Bias(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x + self.bias, 0.2)


class Block(nn.Module):
    """Residual: 1x1, 3x3 in groups, 1x1."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        inner = channels * EXPANSION
        self.layers = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=False),
            Bias(inner),
            nn.Conv2d(inner, inner, 3, padding=1, groups=groups, bias=False),
            Bias(inner),
            nn.Conv2d(inner, channels, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Downsample(nn.Module):
    """A constant binomial filter of each channel."""

    def __init__(self) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("kernel", row[:, None] * row)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        kernel = self.kernel.expand(channels, 1, 3, 3)
        return F.conv2d(x, kernel, stride=2, padding=1, groups=channels)


def discriminator() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, WIDTHS[0], 1, bias=False)]
    for stage, (width, groups) in enumerate(zip(WIDTHS, GROUPS, strict=True)):
        layers += [Downsample()] if stage else []
        layers += [Block(width, groups) for _ in range(BLOCKS)]
    last = WIDTHS[-1]
    basis = nn.Conv2d(last, last, 4, groups=last, bias=False)
    return nn.Sequential(*layers, basis, nn.Flatten(), nn.Linear(last, 1, bias=False))


def relativistic(real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(fake - real).mean()


def shared_step(critic: nn.Module, real: Tensor, fake: Tensor, graph_cut: str) -> Tensor:
    """As R3GAN writes it: one forward of each serves the main loss and its penalty."""
    real, fake = real.clone().requires_grad_(), fake.clone().requires_grad_()
    logits = critic(real), critic(fake)
    how = gf.Differentiation(graph_cut=graph_cut)
    penalties = [
        gf.penalty_from_logits(logit, x, penalty=gf.R1(gamma=10.0), how=how)
        for logit, x in zip(logits, (real, fake), strict=True)
    ]
    return relativistic(*logits) + penalties[0] + penalties[1]


def separate_step(critic: nn.Module, real: Tensor, fake: Tensor, graph_cut: str) -> Tensor:
    how = gf.Differentiation(graph_cut=graph_cut)
    loss = relativistic(critic(real), critic(fake))
    return loss + gf.r1_penalty(critic, real, how=how) + gf.r2_penalty(critic, fake, how=how)


@pytest.mark.parametrize(
    ("step", "graph_cut", "calls"),
    [
        # 96 for each layer in groups and 768 for the basis, twice: they learn, and are to be equal
        # to the bit. The filters no longer.
        (shared_step, "auto", 3338),
        (separate_step, "auto", 3396),
        # No convolution for each group.
        (shared_step, "fast", 284),
        (separate_step, "fast", 342),
    ],
)
def test_convolutions_of_a_discriminator_step(step, graph_cut, calls):
    """Stock autograd: 7,946 with shared logits."""
    with torch.device("meta"):
        critic, real, fake = discriminator(), *torch.empty(2, 4, 3, SIZE, SIZE).unbind()
        with CountConvolutions() as count:
            step(critic, real, fake, graph_cut).backward()
    assert count.total == calls
