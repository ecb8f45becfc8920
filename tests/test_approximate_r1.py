"""Philox noise, and the approximated R1 that uses it."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from penalty_oracle import assert_penalty, samples, small_critic
from torch import nn

import ganloss_fast as gf
from ganloss_fast import backends, reference


@pytest.fixture(params=["native", "reference"] if backends.HAS_NATIVE else ["reference"])
def backend(request):
    with gf.use_backend(request.param):
        yield request.param


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


def test_philox_words_are_the_published_ones():
    """Random123's known answers for counter 0 and all ones under key 0."""
    words = reference.philox(torch.tensor(0), 1)[0].tolist()
    assert words == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


@pytest.mark.skipif(not backends.HAS_NATIVE, reason="compares two backends")
@pytest.mark.parametrize("seed", [0, 1, -1, 2**62 + 12345])
def test_noise_is_the_same_on_every_backend(dtype, seed):
    x = torch.zeros(1001, dtype=dtype)
    noise = []
    for name in ("native", "reference"):
        with gf.use_backend(name):
            noise.append(gf.perturb(x, 1.0, torch.tensor(seed)))
    gap = (noise[0] - noise[1]).abs()
    ulp = torch.nextafter(noise[1].abs(), torch.tensor(torch.inf, dtype=dtype)) - noise[1].abs()
    assert (gap <= 4 * ulp).all()


def test_noise_is_standard_normal(backend):
    noise = gf.perturb(torch.zeros(40_000, dtype=torch.float64), 1.0, torch.tensor(7))
    assert noise.mean().abs() < 4 / math.sqrt(40_000)
    assert noise.std() == pytest.approx(1, abs=0.02)
    assert noise.pow(4).mean() == pytest.approx(3, abs=0.2)
    assert torch.corrcoef(torch.stack([noise[:-1], noise[1:]]))[0, 1].abs() < 0.02


def test_noise_does_not_depend_on_layout_or_threads(backend):
    x = torch.randn(3, 4, 5, 6)
    seed = torch.tensor(9)
    wanted = gf.perturb(x, 0.1, seed)
    channels_last = gf.perturb(x.to(memory_format=torch.channels_last), 0.1, seed)
    assert torch.equal(wanted, channels_last)
    assert torch.equal(
        wanted, gf.perturb(x.transpose(0, 1).contiguous().transpose(0, 1), 0.1, seed)
    )


def test_the_gradient_passes_through_the_noise(backend):
    x = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: gf.perturb(z, 0.5, torch.tensor(3)), x)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # opcheck's own
@pytest.mark.skipif(not backends.HAS_NATIVE, reason="there is no op")
def test_perturb_is_a_well_behaved_op():
    x = torch.randn(3, 5, requires_grad=True)
    torch.library.opcheck(torch.ops.ganloss_fast.perturb.default, (x, 0.5, torch.tensor(3)))


@pytest.mark.parametrize("normalization", ["mean", "sigma", "sample_sum"])
@pytest.mark.parametrize("single_forward", [False, True])
def test_approximate_r1_is_its_formula(normalization, single_forward):
    critic = small_critic(torch.float64)
    x, _ = samples(torch.float64)
    seed = torch.tensor(4)
    difference = critic(x) - critic(gf.perturb(x, 0.05, seed))
    wanted = {
        "mean": difference.square().mean(),
        "sigma": (difference / 0.05).square().mean(),
        "sample_sum": difference.square().flatten(1).sum(1).mean(),
    }[normalization]
    actual = gf.approximate_r1_penalty(
        critic,
        x,
        0.05,
        weight=3,
        normalization=normalization,
        single_forward=single_forward,
        seed=seed,
    )
    assert_penalty(actual, 3 * wanted, critic, 1e-12)


def test_approximate_r1_tends_to_r1():
    """For a linear critic the expectation is exact: sigma^2 R1."""
    critic = nn.Linear(16, 1).double()
    x = torch.randn(20_000, 16, dtype=torch.float64)
    approximate = gf.approximate_r1_penalty(
        critic, x, 0.1, weight=1, normalization="sigma", seed=torch.tensor(1)
    )
    exact = gf.r1_penalty(critic, x, weight=1)
    assert approximate.item() == pytest.approx(exact.item(), rel=0.05)


def test_approximate_r1_reuses_logits():
    critic = small_critic()
    x, _ = samples()
    seed = torch.tensor(4)
    wanted = gf.approximate_r1_penalty(critic, x, seed=seed)
    assert torch.equal(gf.approximate_r1_penalty(critic, x, logits=critic(x), seed=seed), wanted)


def test_the_difference_of_half_logits_is_taken_in_float32():
    critic = lambda x: (x * 300).sum(1).to(torch.float16)  # noqa: E731
    x = torch.ones(2, 3)
    penalty = gf.approximate_r1_penalty(critic, x, 0.5, weight=1, seed=torch.tensor(0))
    assert penalty.dtype == torch.float32
    assert penalty.isfinite()


def test_a_sigma_that_bfloat16_swallows_warns():
    critic = small_critic().bfloat16()
    x = samples()[0].bfloat16()
    with pytest.warns(UserWarning, match="sigma: 0.01 is too small for a critic in torch.bfloat16"):
        gf.approximate_r1_penalty(critic, x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gf.approximate_r1_penalty(critic, x, sigma=0.1)
