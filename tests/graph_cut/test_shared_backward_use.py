"""Logits and a penalty that share one backward, as training code uses them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from critics import dcgan
from shared_steps import (
    IMAGES,
    SHARED,
    both,
    distance,
    gradients,
    our_pair,
    refusal,
    small,
    step,
    stock_pair,
    two_copies,
)
from torch import nn

import ganloss_fast as gf
from ganloss_fast import backends

needs_native = pytest.mark.skipif(not backends.HAS_NATIVE, reason="needs the native extension")
# ---- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_values_are_those_of_penalty_from_logits_to_the_bit(dtype):
    critic = dcgan(8, 16).to(dtype)
    x = torch.randn(IMAGES, dtype=dtype, requires_grad=True)
    logits = critic(x)
    for options in ({}, {"penalty": "wgan-gp"}, {"weight": 3.0}, {"inv_scale": 2.0**-12}):
        expected = gf.penalty_from_logits(logits, x, **options)
        result = gf.logits_and_penalty(logits, x, **options)
        assert torch.equal(result.logits, logits)
        assert torch.equal(result.penalty, expected)


@needs_native
def test_float32_is_as_exact_as_stock_autograd():
    real, fake = torch.randn(2, 8, 3, 32, 32)
    truth, _ = two_copies(lambda: dcgan(8, 32))
    step(truth, real.double(), fake.double(), stock_pair)
    errors = []
    for pair in (our_pair, stock_pair):
        critic, _ = two_copies(lambda: dcgan(8, 32), torch.float32)
        step(critic, real, fake, pair)
        errors.append(distance(gradients(critic), gradients(truth)))
    assert errors[0] <= 1.5 * errors[1]


@pytest.mark.parametrize("used", ["logits", "penalty"])
def test_one_of_the_pair_alone(used):
    """The same zeros and Nones, of the inputs too."""

    def run(critic, pair):
        x = torch.randn(5, 9, dtype=torch.float64, requires_grad=True)
        logits, penalty = pair(critic(x), x)
        (logits.square().mean() if used == "logits" else penalty).backward()
        return x.grad

    (ours, mine), (theirs, expected) = both(small, run)
    assert distance([*gradients(ours), mine], [*gradients(theirs), expected]) < 1e-13


def test_gradients_of_the_inputs():
    """Of samples that a generator made, they go on to it."""
    generator = nn.Linear(4, 9).double()
    latents = torch.randn(5, 4, dtype=torch.float64)

    def run(critic, pair):
        x = generator(latents)
        logits, penalty = pair(critic(x), x)
        (F.softplus(-logits).mean() + penalty).backward()
        found = gradients(generator)
        generator.zero_grad()
        return found

    (ours, mine), (theirs, expected) = both(small, run)
    assert distance([*gradients(ours), *mine], [*gradients(theirs), *expected]) < 1e-13


@needs_native
def test_several_inputs():
    class Critic(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.last = nn.Linear(9, 8), nn.Linear(4, 8), nn.Linear(8, 1)

        def forward(self, x, y):
            return self.last(F.relu(self.a(x) + self.b(y)))

    found = []
    for critic, is_ours in zip(two_copies(Critic), (True, False)):
        torch.manual_seed(0)
        x = torch.randn(5, 9, dtype=torch.float64, requires_grad=True)
        y = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
        logits = critic(x, y)
        if is_ours:
            logits, penalty = gf.logits_and_penalty(logits, (x, y))
            assert logits.grad_fn.name() == SHARED
        else:
            penalty = gf.penalty_from_logits(
                logits, (x, y), how=gf.Differentiation(graph_cut="off")
            )
        (logits.exp().mean() + penalty).backward()
        found.append([*gradients(critic), x.grad, y.grad])
    assert distance(*found) < 1e-13


# ---- other uses of the graph -------------------------------------------------------------------


def test_a_second_head_and_features_stay_right():
    class Critic(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head, self.classes = nn.Linear(9, 8), nn.Linear(8, 1), nn.Linear(8, 3)

        def forward(self, x):
            features = F.leaky_relu(self.body(x), 0.2)
            return features, self.head(features), self.classes(features)

    def run(critic, pair):
        x = torch.randn(5, 9, dtype=torch.float64, requires_grad=True)
        features, before, classes = critic(x)
        logits, penalty = pair(before, x)
        loss = logits.exp().mean() + penalty + features.square().mean() + before.sin().mean()
        (loss + F.cross_entropy(classes, torch.arange(5) % 3)).backward()
        return x.grad

    (ours, mine), (theirs, expected) = both(Critic, run)
    assert distance([*gradients(ours), mine], [*gradients(theirs), expected]) < 1e-13


def test_two_backwards():
    def run(critic, pair):
        x = torch.randn(5, 9, dtype=torch.float64, requires_grad=True)
        logits, penalty = pair(critic(x), x)
        loss = logits.exp().mean()
        loss.backward(retain_graph=True)
        penalty.backward(retain_graph=True)
        (loss + penalty).backward()

    (ours, _), (theirs, _) = both(small, run)
    assert distance(gradients(ours), gradients(theirs)) < 1e-13


def test_a_freed_graph_raises():
    critic, x = small(), torch.randn(5, 9, requires_grad=True)
    logits, penalty = gf.logits_and_penalty(critic(x), x)
    loss = logits.mean() + penalty
    loss.backward()
    with pytest.raises(RuntimeError, match="a second time"):
        loss.backward()


@needs_native
@pytest.mark.parametrize("used", ["logits", "penalty"])
def test_a_third_derivative_raises(used):
    critic, x = small(), torch.randn(5, 9, requires_grad=True)
    pair = gf.logits_and_penalty(critic(x), x)
    with pytest.raises(NotImplementedError, match="penalty_from_logits"):
        torch.autograd.grad(getattr(pair, used).sum(), critic[0].weight, create_graph=True)


def test_gradients_of_some_parameters_alone():
    def run(critic, pair):
        x = torch.randn(5, 9, dtype=torch.float64, requires_grad=True)
        logits, penalty = pair(critic(x), x)
        wanted = [critic[0].bias, critic[2].weight, x]
        return torch.autograd.grad(logits.exp().mean() + penalty, wanted)

    (_, mine), (_, expected) = both(small, run)
    assert distance(list(mine), list(expected)) < 1e-13


@needs_native
@pytest.mark.parametrize("make", [small, lambda: dcgan(4, 16)], ids=["linear", "convolution"])
def test_an_activation_that_was_changed_in_place_raises(make):
    critic = make()
    kept = []
    critic[2].register_forward_pre_hook(lambda module, args: kept.append(args[0]))
    x = torch.randn(5, 9) if make is small else torch.randn(IMAGES)
    x.requires_grad_()
    logits, penalty = gf.logits_and_penalty(critic(x), x)
    assert logits.grad_fn.name() == SHARED
    with torch.no_grad():
        kept[0].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (logits.mean() + penalty).backward()


def test_hooks_see_what_they_see_in_stock_autograd():
    def run(critic, pair):
        seen = []
        critic[2].register_full_backward_hook(lambda m, gi, go: seen.append(go[0].clone()))
        critic[0].weight.register_hook(lambda g: seen.append(g.clone()))
        x = torch.randn(5, 9, dtype=torch.float64, requires_grad=True)
        logits, penalty = pair(critic(x), x)
        (logits.exp().mean() + penalty).backward()
        return seen

    (_, mine), (_, expected) = both(small, run)
    assert distance(mine, expected) < 1e-13


def test_nothing_stays_on_the_critics_graph():
    critic, x = small(), torch.randn(5, 9, requires_grad=True)
    logits = critic(x)
    for _ in range(2):
        gf.logits_and_penalty(logits, x)
        assert refusal(logits, x) == "" or not backends.HAS_NATIVE


# ---- where there is no shared backward ---------------------------------------------------------


@pytest.mark.parametrize("why", ["no extension", "graph_cut", "several outputs", "no gradients"])
def test_stock_autograds_graph_serves_otherwise(why, monkeypatch):
    options = {}
    if why == "no extension":
        monkeypatch.setattr(backends, "HAS_NATIVE", False)
        monkeypatch.setattr(backends, "NATIVE_MISSING", "not built")
    if why == "graph_cut":
        options["how"] = gf.Differentiation(graph_cut="off")
    critic, x = small().double(), torch.randn(5, 9, dtype=torch.float64, requires_grad=True)
    before = critic(x)
    logits = [before, before.sin()] if why == "several outputs" else before
    with torch.set_grad_enabled(why != "no gradients"):
        result = gf.logits_and_penalty(logits, x, **options)
        assert torch.equal(result.penalty, gf.penalty_from_logits(logits, x, **options))
        assert refusal(logits, x, **options)
    assert result.logits is logits


@pytest.mark.filterwarnings("ignore:.*TracerWarning")
def test_while_compiling_it_is_refused_by_name(fresh_compiler):
    critic, x = small(), torch.randn(5, 9, requires_grad=True)

    @torch.compile(backend="eager", fullgraph=True)
    def run(x):
        return gf.logits_and_penalty(critic(x), x)

    with pytest.raises(Exception, match="Use r1_penalty or gradient_penalty there"):
        run(x)


def test_an_infinity_reaches_the_gradients_as_in_stock_autograd():
    def run(critic, pair):
        x = torch.randn(5, 9, dtype=torch.float64)
        x[2, 3] = torch.inf
        x.requires_grad_()
        logits, penalty = pair(critic(x), x)
        (logits.exp().mean() + penalty).backward()
        return [gradient.isfinite().all().item() for gradient in gradients(critic)]

    (_, mine), (_, expected) = both(small, run)
    assert mine == expected
    assert not all(mine)


def test_bad_input_is_named():
    critic, x = small(), torch.randn(5, 9, requires_grad=True)
    with pytest.raises(ValueError, match="inputs: the logits were not computed from them"):
        gf.logits_and_penalty(critic(x), x.clone())
    with pytest.raises(ValueError, match="do not require grad"):
        gf.logits_and_penalty(critic(x), x.detach())
    with pytest.raises(ValueError, match="logits: they have no graph"):
        gf.logits_and_penalty(critic(x).detach(), x)
    with pytest.raises(TypeError, match="logits"):
        gf.logits_and_penalty("logits", x)


def test_list_of_one_output_stays_a_list():
    critic, x = small(), torch.randn(5, 9, requires_grad=True)
    logits = [critic(x)]
    result = gf.logits_and_penalty(logits, x)
    assert isinstance(result.logits, list)
    assert torch.equal(result.logits[0], logits[0])
