"""The approximated R1, which uses the noise of test_perturb.py."""

from __future__ import annotations

import copy
import random
import warnings

import numpy as np
import pytest
import torch
from critics import SpectralResNet
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


def noisy(x, sigma, seed, k=0):
    """The published noise: the k-th input draws under a seed of its own."""
    return gf.perturb(x, sigma, seed + k * 0x9E3779B97F4A7C15 % 2**63)


@pytest.mark.parametrize("how", [{}, {"single_forward": True}, {"chunk_size": 3}], ids=str)
def test_approximate_r1_takes_several_inputs_and_weighs_outputs(how):
    linear = nn.Linear(5, 4).double()
    critic = lambda a, b: [linear(torch.cat([a, b], 1)).tanh(), a.sum(1) * linear.bias[0]]  # noqa: E731
    a, b = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    seed = torch.tensor(4)
    moved = critic(noisy(a, 0.05, seed), noisy(b, 0.05, seed, 1))
    differences = [(x - y).square().mean() for x, y in zip(critic(a, b), moved)]
    wanted = 100 * (0.5 * differences[0] - 2 * differences[1])
    actual = gf.approximate_r1_penalty(
        gf.Call(critic, output_weights=[0.5, -2.0]), (a, b), 0.05, seed=seed, **how
    )
    assert_penalty(actual, wanted, linear, 1e-12)


def test_several_inputs_have_noise_of_their_own():
    x = torch.zeros(4, 3)
    seen = []

    def critic(a, b):
        seen.append((a, b))
        return (a + b).sum(1)

    with torch.no_grad():
        gf.approximate_r1_penalty(critic, (x, x), 1.0)
    assert not torch.isclose(*seen[1]).any()


@pytest.mark.parametrize("normalization", ["mean", "sigma", "sample_sum"])
@pytest.mark.parametrize("chunk_size", [1, 3, 8])
def test_approximate_r1_in_chunks_equals_the_whole(normalization, chunk_size):
    critic = small_critic()
    x, _ = samples(batch=8)
    options = {"normalization": normalization, "seed": torch.tensor(4), "sigma": 0.1}
    actual = gf.approximate_r1_penalty(critic, x, chunk_size=chunk_size, **options)
    assert_penalty(actual, gf.approximate_r1_penalty(critic, x, **options), critic, 3e-6)


@pytest.mark.parametrize("how", ["two forwards", "logits", "single_forward", "chunk_size"])
def test_both_forwards_see_one_critic_with_spectral_norm(how):
    """Another power iteration between them would be measured instead of the noise."""
    torch.manual_seed(0)
    critic = SpectralResNet(8, 16)
    x, seed = torch.randn(4, 3, 16, 16), torch.tensor(4)
    once = copy.deepcopy(critic)
    once(x)  # the one iteration of the step
    options = {"sigma": 1e-3, "normalization": "sigma", "seed": seed}
    once.eval()
    wanted = gf.approximate_r1_penalty(once, x, **options)
    if how == "logits":
        options["logits"] = critic(x)
    elif how != "two forwards":
        options[how] = 2 if how == "chunk_size" else True
    actual = gf.approximate_r1_penalty(critic, x, **options)
    assert actual.item() == pytest.approx(wanted.item(), rel=1e-2)
    for a, b in zip(critic.buffers(), once.buffers(), strict=True):
        assert torch.equal(a, b)
    assert all(module.training for module in critic.modules())


@pytest.mark.filterwarnings("ignore:Using `torch.compile.module.` when there are global hooks")
@pytest.mark.parametrize("wrap", [lambda c: c, lambda c: lambda x: c(x)], ids=["module", "lambda"])
def test_a_compiled_critic_gives_the_penalty_of_the_eager_one(wrap):
    torch.manual_seed(0)
    critic = SpectralResNet(8, 16)
    eager = copy.deepcopy(critic)
    compiled = wrap(torch.compile(critic, backend="aot_eager"))
    x = torch.randn(4, 3, 16, 16)
    for seed in torch.arange(2):
        actual = gf.approximate_r1_penalty(compiled, x, seed=seed)
        wanted = gf.approximate_r1_penalty(eager, x, seed=seed)
        assert actual.item() == pytest.approx(wanted.item(), rel=1e-4)
        actual.backward()
    for a, b in zip(critic.buffers(), eager.buffers(), strict=True):
        assert torch.allclose(a, b, rtol=1e-5)


def test_both_forwards_drop_the_same_features():
    critic = nn.Sequential(nn.Linear(3, 64), nn.Dropout(0.5), nn.Linear(64, 1))
    x = torch.randn(4, 3)
    penalty = gf.approximate_r1_penalty(critic, x, 1e-3, normalization="sigma", weight=1)
    assert penalty < 1  # 4e4 with other features


@pytest.mark.parametrize("how", ["logits", "single_forward"])
def test_a_critic_that_draws_other_numbers_for_the_noisy_samples_warns(how):
    critic = nn.Sequential(nn.Linear(3, 64), nn.Dropout(0.5), nn.Linear(64, 1))
    x = torch.randn(4, 3)
    option = {"logits": critic(x)} if how == "logits" else {"single_forward": True}
    with pytest.warns(UserWarning, match="critic: it draws random numbers") as record:
        gf.approximate_r1_penalty(critic, x, **option)
    assert record[0].filename == __file__


def test_arguments_are_doubled_as_batch_args_says():
    critic = small_critic(torch.float64)
    x, _ = samples(torch.float64)
    shift = torch.rand(4, 1, 1, dtype=torch.float64)  # channels of the features, not samples

    def run(z, shift, scale):
        return critic(z) + shift * critic(z) * scale["by"]

    factor = torch.rand(4, 1, 1, 1, dtype=torch.float64)
    call, seed = gf.Call(run, (shift,), {"scale": {"by": factor}}), torch.tensor(1)
    for how in ({"single_forward": True}, {"chunk_size": 2}):
        wanted = gf.approximate_r1_penalty(call, x, seed=seed)
        actual = gf.approximate_r1_penalty(call, x, seed=seed, batch_args=["scale"], **how)
        assert_penalty(actual, wanted, critic, 1e-12)


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
    x = torch.ones(2, 3, requires_grad=True)
    penalty = gf.approximate_r1_penalty(critic, x, 0.5, weight=1, seed=torch.tensor(0))
    assert penalty.dtype == torch.float32
    assert penalty.isfinite()


class InBfloat16(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = small_critic().bfloat16()

    def forward(self, x):
        return self.inner(x.bfloat16()).float()


def under_autocast(x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return gf.approximate_r1_penalty(lambda z: small_critic()(z).float(), x)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: gf.approximate_r1_penalty(small_critic().bfloat16(), x.bfloat16()),
        lambda x: gf.approximate_r1_penalty(InBfloat16(), x),
        lambda x: gf.approximate_r1_penalty(InBfloat16(), x, single_forward=True),
        under_autocast,
    ],
    ids=["all", "inside", "inside, joined", "autocast"],
)
def test_a_sigma_that_bfloat16_swallows_warns(function):
    x = samples()[0]
    with pytest.warns(UserWarning, match="sigma: 0.01 is too small for a critic in torch.bfloat16"):
        function(x)


def test_a_sigma_that_bfloat16_resolves_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gf.approximate_r1_penalty(small_critic().bfloat16(), samples()[0].bfloat16(), sigma=0.1)
        gf.approximate_r1_penalty(small_critic(), samples()[0])


@pytest.mark.parametrize(
    ("critic", "options", "error", "message"),
    [
        ("x", {}, TypeError, "critic: expected a function or a module"),
        (lambda z: (z, z), {}, TypeError, "critic: it returned a tuple of 2"),
        (lambda z: z, {"logits": (0, 0)}, TypeError, "logits: got a tuple of 2"),
        (lambda z: z.detach(), {}, ValueError, "critic: its output has no graph"),
        (lambda z: z.mul_(2), {}, ValueError, "critic: it changes its input in place"),
        (lambda z: z.sum(), {"single_forward": True}, ValueError, "single_forward: expected logit"),
        (lambda z: z.sum(), {"normalization": "sample_sum"}, ValueError, "0-d output"),
        (
            gf.Call(lambda z: z, output_weights=[1, 2]),
            {},
            ValueError,
            "output_weights: expected one for",
        ),
        (
            gf.Call(lambda z: z, logit_reduction="mean"),
            {},
            ValueError,
            "logit_reduction: not for finite differences",
        ),
        (lambda z: z, {"sigma": 0}, ValueError, "sigma: expected a number > 0"),
        (lambda z: z, {"chunk_size": 0}, ValueError, "chunk_size: expected at least 1"),
        (lambda z: z, {"chunk_size": 1, "single_forward": True}, ValueError, "chunk_size: not"),
        (lambda z: z, {"batch_args": [0]}, ValueError, "batch_args: 0 is neither"),
        (lambda z: z.sum(), {"chunk_size": 1}, ValueError, "chunk_size: the critic returns a 0-d"),
    ],
)
def test_what_approximate_r1_cannot_do_is_explained(critic, options, error, message):
    x = torch.randn(4, 3).requires_grad_() * 1.0
    with pytest.raises(error, match=message):
        gf.approximate_r1_penalty(critic, x, **options)


# ---- random numbers that are not torch's ---------------------------------------------------------

TORCH_OWN = torch.Generator().manual_seed(0)
NUMPY_GLOBAL = np.random.mtrand._rand  # what np.random.rand is a method of
OWN = {
    "python": lambda: random.random(),
    "numpy": NUMPY_GLOBAL.rand,
    "torch.Generator": lambda: torch.rand((), generator=TORCH_OWN).item(),
    "numpy Generator": np.random.default_rng(0).random,
    "numpy RandomState": np.random.RandomState(0).rand,
    "random.Random": random.Random(0).random,
}


class Jittered(nn.Module):
    """Every forward pass draws the gain of its own linear layer."""

    def __init__(self, draw):
        super().__init__()
        self.linear = nn.Linear(4, 1).double()
        self.draw = draw

    def forward(self, x):
        return self.linear(x) * (1 + self.draw())


class Holding(Jittered):
    def __init__(self):
        super().__init__(None)
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, x):
        return self.linear(x) * (1 + torch.rand((), generator=self.generator).item())


JITTERED = {name: lambda draw=draw: Jittered(draw) for name, draw in OWN.items()}
JITTERED["held by a module"] = Holding


@pytest.mark.parametrize("wrap", [lambda c: c, lambda c: lambda x: c(x)], ids=["module", "lambda"])
@pytest.mark.parametrize("name", JITTERED)
def test_the_second_forward_draws_what_the_first_drew(name, wrap):
    """By hand: with one gain 1 <= g < 2 in both, the difference is g * w (x - x')."""
    critic, x = JITTERED[name](), torch.randn(64, 4, dtype=torch.float64)
    seed = torch.tensor(5)
    difference = (gf.perturb(x, 1e-2, seed) - x) @ critic.linear.weight.detach().t()
    at_least = difference.square().mean().item()
    for _ in range(3):
        penalty = gf.approximate_r1_penalty(wrap(critic), x, 1e-2, weight=1, seed=seed)
        assert at_least * 0.999 <= penalty.item() <= 4.001 * at_least


def test_the_streams_go_on_as_after_one_forward():
    both = {"python": random.random, "numpy": NUMPY_GLOBAL.random_sample}
    before = random.getstate(), NUMPY_GLOBAL.get_state()
    _, *wanted = ([draw() for draw in both.values()] for _ in range(2))
    random.setstate(before[0])
    NUMPY_GLOBAL.set_state(before[1])
    critic = Jittered(lambda: sum(draw() for draw in both.values()))
    gf.approximate_r1_penalty(critic, torch.randn(2, 4).double())
    assert [draw() for draw in both.values()] == wanted[0]


@pytest.mark.parametrize("name", JITTERED)
def test_given_logits_warn_of_every_generator(name):
    critic, x = JITTERED[name](), torch.randn(4, 4, dtype=torch.float64)
    with pytest.warns(UserWarning, match="critic: it draws random numbers"):
        gf.approximate_r1_penalty(critic, x, logits=critic(x))


def test_meta_tensors_have_a_penalty_without_data():
    critic = nn.Linear(4, 1, device="meta")
    penalty = gf.approximate_r1_penalty(critic, torch.randn(2, 4, device="meta"))
    assert penalty.is_meta
    assert penalty.shape == ()


def test_no_global_hook_is_registered_for_a_module():
    from torch.nn.modules import module as torch_module

    seen = []

    class Looking(nn.Linear):
        def forward(self, x):
            seen.append(len(torch_module._global_forward_pre_hooks))
            return super().forward(x)

    gf.approximate_r1_penalty(Looking(4, 1), torch.randn(2, 4))
    assert seen == [0, 0]
