"""Published penalties, each against the formula of its code, in float64."""

from __future__ import annotations

import by_keyword
import pytest
import torch
from penalty_oracle import assert_penalty, flat, samples, small_critic
from torch import Tensor

import ganloss_fast as gf

EXACT = 1e-12


@pytest.fixture
def critic():
    return small_critic(torch.float64)


@pytest.fixture
def real():
    return samples(torch.float64)[0]


@pytest.fixture
def fake():
    return samples(torch.float64)[1]


def gradient(critic, x: Tensor, output=torch.sum) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(output(critic(x)), x, create_graph=True)[0]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def per_sample(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


ALPHA = torch.tensor([0.1, 0.9, 0.5, 0.0], dtype=torch.float64)
ALPHA_MAP = torch.rand(4, 3, 8, 8, generator=seeded(), dtype=torch.float64)
SOFT_MASK = torch.rand(4, 1, 8, 8, generator=seeded(), dtype=torch.float64)


# ---- DRAGAN: the noise is the generator's first draw --------------------------------------------


def uniform(real: Tensor) -> Tensor:
    return torch.rand(real.shape, generator=seeded(), dtype=torch.float64)


def normal(real: Tensor) -> Tensor:
    return torch.randn(real.shape, generator=seeded(), dtype=torch.float64)


# name: keywords, x_hat of real, penalty of the gradient
DRAGANS = {
    "torchgan": (
        {"alpha": ALPHA_MAP, "norm": "batch"},
        lambda x: x + (1 - ALPHA_MAP) * 0.5 * x.std() * uniform(x),
        lambda g: 10 * (g.norm() - 1).square(),
    ),
    "PyTorch-GAN": (
        {"alpha": ALPHA_MAP, "norm": "channel"},
        lambda x: ALPHA_MAP * x + (1 - ALPHA_MAP) * (x + 0.5 * x.std() * uniform(x)),
        lambda g: 10 * (g.norm(2, dim=1) - 1).square().mean(),
    ),
    "StudioGAN, and the paper's code": (
        {"alpha": 1 - ALPHA},
        lambda x: x + per_sample(ALPHA) * 0.5 * x.std() * uniform(x),
        lambda g: 10 * (flat(g).norm(2, dim=1) - 1).square().mean(),
    ),
    "compare_gan": (
        {
            "at": gf.AroundReal(1.0, "population", "centered", (0.0, 1.0)),
            "alpha": 0.0,
            "eps": 1e-4,
        },
        lambda x: (x + x.std(correction=0) * (uniform(x) - 0.5)).clamp(0, 1),
        lambda g: 10 * ((1e-4 + flat(g).square().sum(1)).sqrt() - 1).square().mean(),
    ),
    "noise of its own scale": (
        {"at": gf.AroundReal(0.1, "none"), "alpha": 0.0},
        lambda x: x + 0.1 * uniform(x),
        lambda g: 10 * (flat(g).norm(2, dim=1) - 1).square().mean(),
    ),
    "normal noise": (
        {"at": gf.AroundReal(noise="normal"), "alpha": 0.0},
        lambda x: x + 0.5 * x.std() * normal(x),
        lambda g: 10 * (flat(g).norm(2, dim=1) - 1).square().mean(),
    ),
}


@pytest.mark.parametrize("name", DRAGANS)
def test_dragan(critic, real, name):
    options, x_hat, formula = DRAGANS[name]
    options = {"at": gf.AroundReal(), **options}
    actual = by_keyword.gradient_penalty(critic, real, rng=seeded(), **options)
    assert_penalty(actual, formula(gradient(critic, x_hat(real))), critic, EXACT)


# ---- between real and fake samples --------------------------------------------------------------


def hinge(excess: Tensor) -> Tensor:
    return excess.clamp(min=0)


# name: keywords, penalty of the gradient at alpha * real + (1 - alpha) * fake
MIXED = {
    "TF-GAN, target and epsilon": (
        {"weight": 10 / 0.4**2, "target": 0.4, "eps": 1e-10},
        lambda g: 10 * ((flat(g).square().sum(1) + 1e-10).sqrt() / 0.4 - 1).square().mean(),
    ),
    "TF-GAN, one-sided": (
        {"weight": 10 / 0.4**2, "target": 0.4, "eps": 1e-10, "one_sided": True},
        lambda g: 10 * hinge((flat(g).square().sum(1) + 1e-10).sqrt() / 0.4 - 1).square().mean(),
    ),
    "progressive GAN, per sample": (
        {"weight": 10 / 750**2, "target": 750, "reduction": "none"},
        lambda g: (flat(g).square().sum(1).sqrt() - 750).square() * (10 / 750**2),
    ),
    "CycleGAN": (
        {"eps": 1e-16, "eps_at": "gradient"},
        lambda g: ((flat(g) + 1e-16).norm(2, dim=1) - 1).square().mean() * 10,
    ),
    "WGAN-LP": (
        {"one_sided": True, "target": 0.4},
        lambda g: 10 * hinge(flat(g).norm(2, dim=1) - 0.4).square().mean(),
    ),
    "soft mask in the norm": (
        {"mask": SOFT_MASK.sqrt()},
        lambda g: 10 * ((g.square() * SOFT_MASK).sum((1, 2, 3)).sqrt() - 1).square().mean(),
    ),
    "mmagic, mask": (
        {"norm": "channel", "mask": SOFT_MASK, "normalize_by_mask": True},
        lambda g: 10 * ((g * SOFT_MASK).norm(2, dim=1) - 1).square().mean() / SOFT_MASK.mean(),
    ),
    "mmagic, mask and the whole sample": (
        {"mask": SOFT_MASK, "normalize_by_mask": True},
        lambda g: 10 * (flat(g * SOFT_MASK).norm(2, dim=1) - 1).square().mean() / SOFT_MASK.mean(),
    ),
    "a mask under a one-sided sum": (
        {"mask": SOFT_MASK, "one_sided": True, "target": 0.24, "reduction": "sum"},
        lambda g: 10 * hinge(flat(g * SOFT_MASK).norm(2, dim=1) - 0.24).square().sum(),
    ),
    "a mask, normalised, under a maximum": (
        {"mask": SOFT_MASK > 0.5, "normalize_by_mask": True, "reduction": "max"},
        lambda g: (
            10
            * (flat(g * (SOFT_MASK > 0.5)).norm(2, dim=1) - 1).square().max()
            / (SOFT_MASK > 0.5).double().mean()
        ),
    ),
    "maximum, zero-centred (StudioGAN)": (
        {"target": 0, "reduction": "max", "weight": 1},
        lambda g: flat(g).norm(2, dim=1).square().max(),
    ),
    "maximum, one-sided": (
        {"target": 0.4, "reduction": "max", "one_sided": True},
        lambda g: 10 * hinge(flat(g).norm(2, dim=1) - 0.4).square().max(),
    ),
    "sum over samples (PyTorch-GAN-Zoo)": (
        {"reduction": "sum"},
        lambda g: 10 * (flat(g).square().sum(1).sqrt() - 1).square().sum(),
    ),
    "sum over pixels": (
        {"reduction": "sum", "norm": "channel"},
        lambda g: 10 * (g.norm(2, dim=1) - 1).square().sum(),
    ),
}


@pytest.mark.parametrize("name", MIXED)
def test_between_real_and_fake(critic, real, fake, name):
    options, formula = MIXED[name]
    x_hat = per_sample(ALPHA) * real + per_sample(1 - ALPHA) * fake
    actual = by_keyword.gradient_penalty(critic, real, fake, alpha=ALPHA, **options)
    assert_penalty(actual, formula(gradient(critic, x_hat)), critic, EXACT)


def test_alpha_on_the_fake_samples_is_one_minus_alpha(critic, real, fake):
    """IGUL222's code, TF-GAN and others: real + alpha * (fake - real)."""
    g = gradient(critic, real + per_sample(ALPHA) * (fake - real))
    wanted = 10 * (flat(g).norm(2, dim=1) - 1).square().mean()
    actual = gf.gradient_penalty(critic, real, fake, alpha=1 - ALPHA)
    assert_penalty(actual, wanted, critic, EXACT)


def test_one_alpha_for_the_batch_with_a_norm_over_channels(critic, real, fake):
    """SinGAN."""
    g = gradient(critic, 0.3 * real + 0.7 * fake)
    wanted = 0.1 * (g.norm(2, dim=1) - 1).square().mean()
    actual = gf.gradient_penalty(
        critic, real, fake, penalty=gf.WGANGP(norm="channel"), alpha=0.3, weight=0.1
    )
    assert_penalty(actual, wanted, critic, EXACT)


def test_weights_per_sample(critic, real, fake):
    """TF-GAN: the sum over weighted samples by the number of weights that are not zero."""
    weights = torch.tensor([0.5, 0.0, 2.0, 1.0], dtype=torch.float64)
    g = gradient(critic, per_sample(ALPHA) * real + per_sample(1 - ALPHA) * fake)
    wanted = (weights * 10 * (flat(g).norm(2, dim=1) - 1).square()).sum() / 3
    values = gf.gradient_penalty(
        critic, real, fake, penalty=gf.WGANGP(reduction="none"), alpha=ALPHA
    )
    assert_penalty((weights * values).sum() / 3, wanted, critic, EXACT)


def test_wgan_div_is_the_sum_of_two(critic, real, fake):
    """PyTorch-GAN: k = 2, p = 6."""
    of_real = flat(gradient(critic, real)).square().sum(1) ** 3
    of_fake = flat(gradient(critic, fake)).square().sum(1) ** 3
    options = {"target": 0, "power": 6, "weight": 1}
    actual = by_keyword.gradient_penalty(critic, real, at="real", **options)
    actual = actual + by_keyword.gradient_penalty(critic, None, fake, at="fake", **options)
    assert_penalty(actual, (of_real + of_fake).mean() * 2 / 2, critic, EXACT)


def test_gradients_beside_the_penalty(critic, real):
    """CycleGAN's cal_gradient_penalty returns (penalty, gradients)."""
    g = gradient(critic, real)
    wanted = ((flat(g) + 1e-16).norm(2, dim=1) - 1).square().mean() * 10
    mine = gf.cut_second_order(gradient(critic, real))
    options = {"weight": 10, "target": 1, "eps": 1e-16, "eps_at": "gradient"}
    assert_penalty(by_keyword.penalty_from_grads(mine, **options), wanted, critic, EXACT)
    assert torch.equal(flat(mine), flat(g))


# ---- R1 -----------------------------------------------------------------------------------------

R1S = {
    "mmagic, pixel": (
        {"norm": "channel", "weight": 1},
        lambda g: g.norm(2, dim=1).square().mean(),
    ),
    "mmagic, pixel and mask": (
        {"norm": "channel", "weight": 1, "mask": SOFT_MASK, "normalize_by_mask": True},
        lambda g: (g * SOFT_MASK).norm(2, dim=1).square().mean() / SOFT_MASK.mean(),
    ),
    "mmagic, HWC": ({"weight": 1}, lambda g: flat(g).square().sum(1).mean()),
    "half inside": ({"weight": 0.5}, lambda g: 0.5 * g.square().sum((1, 2, 3)).mean()),
    "StyleGAN3 and R3GAN, per sample": (
        {"weight": 1, "reduction": "none"},
        lambda g: g.square().sum((1, 2, 3)),
    ),
    "LaMa": ({"weight": 1e-3}, lambda g: 1e-3 * (flat(g).norm(2, dim=1) ** 2).mean()),
}


@pytest.mark.parametrize("name", R1S)
def test_r1(critic, real, name):
    options, formula = R1S[name]
    actual = by_keyword.r1_penalty(critic, real, **options)
    assert_penalty(actual, formula(gradient(critic, real)), critic, EXACT)


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_r1_of_the_mean_logit(critic, real, chunk_size):
    """FUNIT's calc_grad2."""
    g = gradient(critic, real, torch.mean)
    actual = gf.r1_penalty(
        gf.Call(critic, logit_reduction="mean"),
        real,
        weight=1,
        how=gf.Differentiation(chunk_size=chunk_size),
    )
    assert_penalty(actual, g.square().sum() / 4, critic, EXACT)
