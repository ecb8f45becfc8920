"""A penalty in slices of the batch."""

from __future__ import annotations

import copy

import pytest
import torch
from critics import SpectralResNet, StyleGan2, patchgan
from penalty_oracle import assert_penalty, samples, small_critic
from torch import nn
from torch.utils.checkpoint import checkpoint

import ganloss_fast as gf


@pytest.mark.parametrize("chunk_size", [1, 3, 8])
@pytest.mark.parametrize("options", [{}, {"reduction": "sum"}, {"norm": "channel"}], ids=str)
def test_chunks_equal_the_whole_to_rounding(chunk_size, options):
    critic = small_critic()
    x, _ = samples(batch=8)
    mask = torch.rand(8, 1, 8, 8)
    options = {"sampling": "real", "mask": mask, "normalize_by_mask": True, **options}
    actual = gf.gradient_penalty(critic, x, chunk_size=chunk_size, **options)
    assert_penalty(actual, gf.gradient_penalty(critic, x, **options), critic, 3e-6)


def test_chunks_take_labels_and_scale_with_the_incoming_gradient():
    critic = SpectralResNet(8, 16, classes=5).eval()
    x, labels = torch.randn(4, 3, 16, 16), torch.tensor([0, 4, 2, 1])
    grads = []
    for chunk_size in (None, 2):
        critic.zero_grad()
        penalty = gf.r1_penalty(critic, x, critic_args=(labels,), chunk_size=chunk_size)
        (3 * penalty).backward()
        grads.append([p.grad for p in critic.parameters()])
    for a, b in zip(*grads, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, rtol=1e-4, atol=1e-7)


def test_chunks_see_the_spectral_norm_of_the_first():
    """The power iteration runs once per forward: four times would be another critic."""
    torch.manual_seed(0)
    critic = SpectralResNet(8, 16)
    whole = copy.deepcopy(critic)
    x = torch.randn(4, 3, 16, 16)
    gf.r1_penalty(critic, x, chunk_size=1).backward()
    gf.r1_penalty(whole, x).backward()
    for (name, a), b in zip(critic.named_parameters(), whole.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        assert a.grad is None or torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-7), name
    for a, b in zip(critic.buffers(), whole.buffers(), strict=True):
        assert torch.equal(a, b)
    assert all(module.training for module in critic.modules())


def test_chunks_work_with_a_checkpointed_critic():
    critic = small_critic()
    x, _ = samples()
    run = lambda z: checkpoint(critic, z, use_reentrant=False)  # noqa: E731
    wanted = gf.r1_penalty(critic, x)
    assert_penalty(gf.r1_penalty(run, x, chunk_size=2), wanted, critic, 3e-6)


def test_chunks_reach_a_generator_that_was_not_detached():
    generator, critic = nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    z = torch.randn(4, 3)
    grads = []
    for chunk_size in (None, 2):
        generator.zero_grad()
        gf.r2_penalty(critic, generator(z), chunk_size=chunk_size).backward()
        grads.append(generator.weight.grad)
    assert torch.allclose(*grads, rtol=1e-5)


@pytest.mark.parametrize(
    "make",
    [lambda: patchgan(4, nn.BatchNorm2d), lambda: StyleGan2(4, 16, group=2)],
    ids=["batch norm", "mini-batch standard deviation"],
)
def test_chunks_refuse_critics_whose_samples_interact(make):
    with pytest.raises(ValueError, match="samples of this critic interact"):
        gf.r1_penalty(make(), torch.randn(4, 3, 32, 32)[..., :16, :16], chunk_size=2)


def test_chunks_refuse_buffers_that_move():
    critic = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, track_running_stats=True), nn.Conv2d(4, 1, 3)
    )
    with pytest.raises(ValueError, match="a buffer of the critic changes"):
        gf.r1_penalty(critic, torch.randn(4, 3, 8, 8), chunk_size=2)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"chunk_size": 0}, ValueError, "at least 1"),
        ({"chunk_size": 2.0}, TypeError, "an integer"),
        ({"chunk_size": 2, "reduction": "max"}, ValueError, "slices can be added up"),
        ({"chunk_size": 2, "norm": "batch"}, ValueError, "slices can be added up"),
    ],
)
def test_chunks_refuse_what_slices_cannot_give(options, error, message):
    with pytest.raises(error, match=f"chunk_size: .*{message}"):
        gf.gradient_penalty(small_critic(), samples()[0], sampling="real", **options)
