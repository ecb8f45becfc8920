"""The penalties against the formulas, written out in plain PyTorch."""

from __future__ import annotations

import by_keyword
import pytest
import reference
import torch
import torch.nn.functional as F
from critics import SpectralResNet, dcgan
from penalty_oracle import TOLERANCE, assert_penalty, flat, hand_written, samples, small_critic
from torch import nn

import ganloss_fast as gf

pytestmark = pytest.mark.every_implementation


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


ALPHA = torch.tensor([0.1, 0.9, 0.5, 0.0])
MASK = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(2)).round()

VARIANTS = {
    "WGAN-GP": ({}, lambda g: 10 * (flat(g).norm(dim=1) - 1).square().mean()),
    "weight tensor": (
        {"weight": torch.tensor(3.0)},
        lambda g: 3 * (flat(g).norm(dim=1) - 1).square().mean(),
    ),
    "target": ({"target": 0.3}, lambda g: 10 * (flat(g).norm(dim=1) - 0.3).square().mean()),
    "one-sided": (
        {"one_sided": True, "target": 0.05},
        lambda g: 10 * (flat(g).norm(dim=1) - 0.05).relu().square().mean(),
    ),
    "zero-centred": ({"target": 0}, lambda g: 10 * flat(g).square().sum(1).mean()),
    "WGAN-div": (
        {"target": 0, "power": 6, "weight": 1},
        lambda g: flat(g).square().sum(1).pow(3).mean(),
    ),
    "maximum": (
        {"target": 0, "reduction": "max"},
        lambda g: 10 * flat(g).square().sum(1).max(),
    ),
    "sum": ({"reduction": "sum"}, lambda g: 10 * (flat(g).norm(dim=1) - 1).square().sum()),
    "none": ({"reduction": "none"}, lambda g: 10 * (flat(g).norm(dim=1) - 1).square()),
    "per pixel": ({"norm": "channel"}, lambda g: 10 * (g.norm(dim=1) - 1).square().mean()),
    "whole batch": ({"norm": "batch"}, lambda g: 10 * (g.norm() - 1).square()),
    "eps in the root": (
        {"eps": 1e-4},
        lambda g: 10 * ((flat(g).square().sum(1) + 1e-4).sqrt() - 1).square().mean(),
    ),
    "eps added": (
        {"eps": 1e-2, "eps_at": "gradient"},
        lambda g: 10 * ((flat(g) + 1e-2).norm(dim=1) - 1).square().mean(),
    ),
    "masked": (
        {"mask": MASK},
        lambda g: 10 * (flat(g * MASK.to(g.dtype)).norm(dim=1) - 1).square().mean(),
    ),
    "masked and normalised, per pixel": (
        {"mask": MASK, "normalize_by_mask": True, "norm": "channel"},
        lambda g: (
            10 * ((g * MASK.to(g.dtype)).norm(dim=1) - 1).square().mean() / MASK.to(g.dtype).mean()
        ),
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_published_variant_is_its_formula(implementation, dtype, variant):
    options, formula = VARIANTS[variant]
    critic = small_critic(dtype)
    real, fake = samples(dtype)
    alpha = ALPHA.to(dtype)
    x_hat = reference.lerp(real, fake, alpha)
    actual = by_keyword.gradient_penalty(critic, real, fake, alpha=alpha, **options)
    assert_penalty(actual, hand_written(critic, x_hat, formula), critic, TOLERANCE[dtype])


@pytest.mark.parametrize("sampling", ["real", "fake"])
def test_sampling_at_real_or_fake_samples(sampling):
    critic = small_critic()
    real, fake = samples()
    point = real if sampling == "real" else fake
    wanted = hand_written(critic, point, VARIANTS["WGAN-GP"][1])
    assert_penalty(gf.gradient_penalty(critic, real, fake, at=sampling), wanted, critic, 3e-6)


@pytest.mark.parametrize("std", ["sample", "population"])
def test_dragan_samples_lie_around_real_ones(std):
    real, _ = samples()
    seen = []
    critic = small_critic()

    def spy(x):
        seen.append(x.detach())
        return critic(x)

    gf.gradient_penalty(spy, real, at=gf.AroundReal(std=std), alpha=0.0)
    step = (seen[0] - real) / (0.5 * real.std(correction=1 if std == "sample" else 0))
    assert step.min() >= 0
    assert step.max() < 1
    assert step.mean() == pytest.approx(0.5, abs=0.05)


def test_compare_gan_dragan_is_centred_and_clamped():
    real, _ = samples()
    noisy = gf.AroundReal(1.0, "population", "centered", (0.0, 1.0)).noisy(real, None)
    assert noisy.min() >= 0
    assert noisy.max() <= 1


@pytest.mark.parametrize(("kind", "distinct"), [("sample", 4), ("element", 768), ("batch", 1)])
def test_alpha_is_drawn_for_each_sample_element_or_batch(kind, distinct):
    real, fake = torch.ones(4, 3, 8, 8), torch.zeros(4, 3, 8, 8)
    x_hat = gf.interpolate(real, fake, kind)
    assert x_hat.unique().numel() == distinct
    assert 0 <= x_hat.min() <= x_hat.max() < 1


def test_the_same_generator_gives_the_same_penalty():
    critic = small_critic()
    real, fake = samples()
    first, second = (
        gf.gradient_penalty(critic, real, fake, rng=torch.Generator().manual_seed(5))
        for _ in range(2)
    )
    assert torch.equal(first, second)


def test_a_penalty_on_dcgan_matches_the_hand_written_one(dtype):
    torch.manual_seed(0)
    critic = dcgan(8).to(dtype)
    x = torch.randn(4, 3, 32, 32, dtype=dtype)
    wanted = hand_written(critic, x, VARIANTS["WGAN-GP"][1])
    actual = gf.gradient_penalty(critic, x, at="real")
    assert_penalty(actual, wanted, critic, TOLERANCE[dtype])


# ---- critics as people have them ----------------------------------------------------------------


def test_a_critic_with_labels():
    torch.manual_seed(0)
    critic = SpectralResNet(8, 16, classes=5).eval()
    x, labels = torch.randn(4, 3, 16, 16), torch.tensor([0, 4, 2, 2])
    for options in ({"critic_args": (labels,)}, {"critic_args": {"labels": labels}}):
        wanted = hand_written(lambda z: critic(z, labels), x, VARIANTS["WGAN-GP"][1])
        actual = by_keyword.gradient_penalty(critic, x, at="real", **options)
        assert_penalty(actual, wanted, critic, 3e-6)


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.image, self.vector = nn.Conv2d(3, 4, 3), nn.Linear(5, 4)

    def forward(self, image, vector):
        return F.relu(self.image(image).mean((2, 3)) + self.vector(vector)).sum(1)


def test_the_norm_runs_over_all_inputs(implementation):
    torch.manual_seed(1)
    critic = TwoInputs()
    image, vector = torch.randn(4, 3, 8, 8), torch.randn(4, 5)
    points = [image.clone().requires_grad_(), vector.clone().requires_grad_()]
    gradients = torch.autograd.grad(critic(*points).sum(), points, create_graph=True)
    norms = torch.cat([g.flatten(1) for g in gradients], 1).norm(dim=1)
    actual = gf.gradient_penalty(critic, (image, vector), at="real")
    assert_penalty(actual, 10 * (norms - 1).square().mean(), critic, 3e-6)


def test_one_alpha_serves_all_inputs_of_a_sample():
    seen = []

    def critic(a, b):
        seen.extend([a.detach(), b.detach()])
        return a.flatten(1).sum(1) + b.flatten(1).sum(1)

    real = (torch.ones(4, 3), torch.ones(4, 2, 2))
    fake = (torch.zeros(4, 3), torch.zeros(4, 2, 2))
    gf.gradient_penalty(critic, real, fake)
    assert torch.equal(seen[0][:, 0], seen[1][:, 0, 0])


def test_a_list_of_outputs_is_weighted_and_added():
    critic = small_critic()
    x, _ = samples()
    multi = lambda z: [critic(z), critic[:2](z)]  # noqa: E731
    wanted = hand_written(
        lambda z: 0.5 * critic(z).sum() + 2 * critic[:2](z).sum(), x, VARIANTS["WGAN-GP"][1]
    )
    actual = gf.gradient_penalty(gf.Call(multi, output_weights=[0.5, 2.0]), x, at="real")
    assert_penalty(actual, wanted, critic, 3e-6)


def test_logits_can_be_averaged_instead_of_added():
    critic = small_critic()
    x, _ = samples()
    wanted = hand_written(
        lambda z: critic(z).mean(), x, lambda g: 5 * flat(g).square().sum(1).mean()
    )
    assert_penalty(gf.r1_penalty(gf.Call(critic, logit_reduction="mean"), x), wanted, critic, 3e-6)


def test_a_dead_sample_adds_its_penalty_and_no_gradient():
    linear = nn.Linear(3, 1)
    critic = lambda x: linear(x).relu()  # noqa: E731
    with torch.no_grad():
        linear.bias.fill_(-100)
    penalty = gf.gradient_penalty(critic, torch.randn(4, 3), at="real")
    penalty.backward()
    assert penalty.item() == 10
    assert not linear.weight.grad.any()


# ---- R1, R2, and the forms without a critic -----------------------------------------------------


@pytest.mark.parametrize("function", [gf.r1_penalty, gf.r2_penalty])
def test_r1_and_r2_are_half_gamma_times_the_squared_norm(implementation, dtype, function):
    critic = small_critic(dtype)
    x, _ = samples(dtype)
    gamma = 10.0
    wanted = hand_written(critic, x, lambda g: gamma / 2 * flat(g).square().sum(1).mean())
    assert_penalty(function(critic, x), wanted, critic, TOLERANCE[dtype])


def test_penalty_from_logits_and_from_grads_are_r1():
    critic = small_critic()
    x, _ = samples()
    wanted = gf.r1_penalty(critic, x)
    point = x.clone().requires_grad_()
    assert_penalty(gf.penalty_from_logits(critic(point), point), wanted, critic, 1e-7)
    wanted = gf.r1_penalty(critic, x)
    (gradient,) = torch.autograd.grad(critic(point).sum(), point, create_graph=True)
    assert_penalty(gf.penalty_from_grads(gf.cut_second_order(gradient)), wanted, critic, 1e-7)


def test_no_graph_is_built_under_no_grad():
    critic = small_critic()
    x, _ = samples()
    with torch.no_grad():
        penalty = gf.r1_penalty(critic, x)
    assert not penalty.requires_grad
    assert torch.allclose(penalty, gf.r1_penalty(critic, x).detach())


# ---- functional transforms ----------------------------------------------------------------------


def test_inside_torch_func_grad_over_parameters():
    critic = small_critic(torch.float64)
    x, _ = samples(torch.float64)
    parameters = dict(critic.named_parameters())

    def loss(parameters):
        run = lambda z: torch.func.functional_call(critic, parameters, (z,))  # noqa: E731
        return gf.gradient_penalty(run, x, at="real")

    functional = torch.func.grad(loss)({k: v.detach() for k, v in parameters.items()})
    gf.gradient_penalty(critic, x, at="real").backward()
    for name, parameter in parameters.items():
        if parameter.grad is not None:
            assert torch.allclose(functional[name], parameter.grad, rtol=1e-12, atol=1e-15)
