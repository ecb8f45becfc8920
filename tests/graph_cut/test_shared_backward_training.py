"""A shared backward in training: loss scales, checkpoints, optimizers, several processes."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from critics import dcgan, multilayer_perceptron
from shared_steps import (
    IMAGES,
    SHARED,
    both,
    distance,
    gradients,
    our_pair,
    small,
    step,
    stock_pair,
    two_copies,
)
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint
from two_processes import WORLD, in_two_processes

import ganloss_fast as gf
from ganloss_fast import backends

needs_native = pytest.mark.skipif(not backends.HAS_NATIVE, reason="needs the native extension")


@needs_native
@pytest.mark.parametrize("scale", [1.0, 2.0**10, 2.0**14, 2.0**15])
@pytest.mark.parametrize("with_inverse", [False, True], ids=["plain", "inv_scale"])
def test_float16_with_a_loss_scale_is_finite_where_stock_autograd_is(scale, with_inverse):
    """The loss's derivative times an activation, 2^13 times 10 and more, would not be."""
    real, fake = 8 * torch.randn(2, 4, 3, 16, 16)
    inverse = 1 / scale if with_inverse else None

    def run(critic, is_ours):
        logits, penalties = [], []
        for x in (real, fake):
            x = x.clone().requires_grad_()
            with torch.autocast("cpu", torch.float16):
                z = critic(x)
                assert z.dtype == torch.float16
                if is_ours:
                    z, penalty = gf.logits_and_penalty(z, x, weight=0.1, inv_scale=inverse)
                    assert z.grad_fn.name() == SHARED
                else:
                    penalty = gf.penalty_from_logits(z, x, weight=0.1, inv_scale=inverse)
            logits.append(z.float())
            penalties.append(penalty)
        loss = (logits[1] - logits[0]).mean() + penalties[0] + penalties[1]
        (loss * scale).backward()
        return [gradient / scale for gradient in gradients(critic)]

    ours, theirs = two_copies(lambda: dcgan(16, 16), torch.float32)
    mine, expected = run(ours, True), run(theirs, False)
    finite = [bool(gradient.isfinite().all()) for gradient in expected]
    assert all(finite) or scale > 2.0**14
    pairs = [(a, b) for a, b, is_finite in zip(mine, expected, finite) if is_finite]
    assert all(a.isfinite().all() for a, _ in pairs)
    assert distance([a for a, _ in pairs], [b for _, b in pairs]) < 1e-2


@needs_native
def test_bfloat16_autocast():
    real, fake = torch.randn(2, *IMAGES)
    truth, _ = two_copies(lambda: dcgan(8, 16), torch.float32)
    step(truth, real, fake, stock_pair)
    errors = []
    for pair in (our_pair, stock_pair):
        critic, _ = two_copies(lambda: dcgan(8, 16), torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            step(critic, real, fake, pair)
        errors.append(distance(gradients(critic), gradients(truth)))
    assert errors[0] <= 1.5 * errors[1]


@pytest.mark.parametrize("make", [small, lambda: dcgan(4, 16)], ids=["linear", "convolution"])
@pytest.mark.parametrize("part", ["whole", "half"])
def test_under_checkpointing(make, part):
    shape = (5, 9) if make is small else IMAGES

    def run(critic, pair):
        def checkpointed(x):
            if part == "whole":
                return checkpoint(critic, x, use_reentrant=False)
            return critic[2:](checkpoint(critic[:2], x, use_reentrant=False))

        x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
        logits, penalty = pair(checkpointed(x), x)
        (logits.exp().mean() + penalty).backward()
        return x.grad

    (ours, mine), (theirs, expected) = both(make, run)
    assert distance([*gradients(ours), mine], [*gradients(theirs), expected]) < 1e-13


def test_a_second_head_behind_a_checkpoint():
    """Which gives an activation out once in a backward; both heads need it."""

    class Critic(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(*small()[:3], nn.PReLU())
            self.head, self.classes = nn.Linear(8, 1), nn.Linear(8, 3)

        def forward(self, x):
            features = checkpoint(self.body, x, use_reentrant=False)
            return self.head(features), self.classes(features)

    def run(critic, pair):
        x = torch.randn(5, 9, dtype=torch.float64, requires_grad=True)
        logits, classes = critic(x)
        logits, penalty = pair(logits, x)
        (logits.exp().mean() + penalty + classes.sin().sum()).backward()
        return x.grad

    (ours, mine), (theirs, expected) = both(Critic, run)
    assert distance([*gradients(ours), mine], [*gradients(theirs), expected]) < 1e-13


def test_saved_tensor_hooks():
    def run(critic, pair):
        x = torch.randn(5, 9, dtype=torch.float64, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t.clone()):
            logits, penalty = pair(critic(x), x)
        (logits.exp().mean() + penalty).backward()

    (ours, _), (theirs, _) = both(small, run)
    assert distance(gradients(ours), gradients(theirs)) < 1e-13


def trained(critic: nn.Module, pair, shape, steps: int = 20) -> list[torch.Tensor]:
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.0, 0.99))
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        real, fake = torch.randn(2, *shape, dtype=torch.float64, generator=generator)
        optimizer.zero_grad()
        step(critic, real, fake, pair)
        optimizer.step()
    return [parameter.detach() for parameter in critic.parameters()]


class BiasedActivation(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        return F.leaky_relu(x + self.bias.view(1, -1, 1, 1), 0.2) * 2**0.5


def r3gan(width: int = 8) -> nn.Module:
    """A block as R3GAN has them: 1x1, grouped 3x3, 1x1, biased activations; then its head."""
    return nn.Sequential(
        nn.Conv2d(3, width, 1, bias=False),
        nn.Conv2d(width, width, 3, padding=1, groups=2, bias=False),
        BiasedActivation(width),
        nn.Conv2d(width, width, 1, bias=False),
        BiasedActivation(width),
        nn.AvgPool2d(2),
        nn.Conv2d(width, width, 4, groups=width, bias=False),
        nn.Flatten(),
        nn.Linear(width, 1, bias=False),
    )


@pytest.mark.parametrize(
    ("make", "shape"),
    [(r3gan, (4, 3, 8, 8)), (lambda: multilayer_perceptron(16, 4), (16, 3, 4, 4))],
    ids=["R3GAN", "motion prior"],
)
def test_training_goes_the_way_of_stock_autograd(make, shape):
    ours, theirs = two_copies(make)
    found, expected = trained(ours, our_pair, shape), trained(theirs, stock_pair, shape)
    for mine, other in zip(found, expected, strict=True):
        assert torch.allclose(mine, other, rtol=1e-9, atol=1e-11)


def work(rank: int) -> list[float]:
    """How far apart the gradients are, step by step."""
    torch.manual_seed(0)
    batches = torch.randn(3, WORLD, 2, *IMAGES, dtype=torch.float64)  # the same in both
    ours, theirs = two_copies(lambda: dcgan(4, 16))
    wrapped = DistributedDataParallel(ours)
    distances = []
    for batch in batches:
        wrapped.zero_grad()
        theirs.zero_grad()
        x = batch[rank].flatten(0, 1).requires_grad_()
        logits, penalty = our_pair(wrapped(x), x)
        assert logits.grad_fn.name() == SHARED
        (F.softplus(logits[:4] - logits[4:]).mean() + penalty).backward()
        for part in batch:
            x = part.flatten(0, 1).requires_grad_()
            logits, penalty = stock_pair(theirs(x), x)
            ((F.softplus(logits[:4] - logits[4:]).mean() + penalty) / WORLD).backward()
        distances.append(float(distance(gradients(ours), gradients(theirs))))
    return distances


@needs_native
@pytest.mark.skipif(not dist.is_available(), reason="torch without distributed")
def test_under_distributed_data_parallel():
    for distances in in_two_processes(work):
        assert len(distances) == 3
        assert max(distances) < 1e-13
