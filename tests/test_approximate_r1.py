"""The approximated R1, which uses the noise of test_perturb.py."""

from __future__ import annotations

import warnings

import pytest
import torch
from penalty_oracle import assert_penalty, samples, small_critic
from torch import nn

import ganloss_fast as gf


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
