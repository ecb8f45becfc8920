"""What the penalty tests compare with: penalties written out by hand, and how close to be."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

TOLERANCE = {torch.float32: 3e-6, torch.float64: 1e-12}


def small_critic(dtype=torch.float32) -> nn.Module:
    torch.manual_seed(11)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 4, 3, 2, 1), nn.LeakyReLU(0.2)
    ).to(dtype)


def samples(dtype=torch.float32, batch=4) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(12)
    return tuple(torch.randn(2, batch, 3, 8, 8, dtype=dtype).unbind())


def hand_written(critic, x, formula) -> torch.Tensor:
    """``formula`` of the input gradient of the sum of all logits."""
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return formula(gradient)


def assert_penalty(actual, wanted, critic, tolerance):
    """Equal values, and equal gradients of every parameter."""
    parameters = list(critic.parameters())
    a = torch.autograd.grad(actual.sum(), parameters, allow_unused=True)
    b = torch.autograd.grad(wanted.sum(), parameters, allow_unused=True)
    assert torch.allclose(actual.detach(), wanted.detach(), rtol=tolerance, atol=0)
    scale = max(gradient.abs().max() for gradient in b if gradient is not None)
    for ours, theirs in zip(a, b, strict=True):
        if theirs is None:
            assert ours is None or not ours.any()
        else:
            assert (ours - theirs).abs().max() <= tolerance * scale


def flat(g):
    return g.flatten(1)


class HostSync(TorchDispatchMode):
    """Fails where a value is read on the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func._overloadpacket is not torch.ops.aten._local_scalar_dense
        return func(*args, **(kwargs or {}))
