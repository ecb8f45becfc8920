"""Logits and a penalty that share one backward, as training code uses them."""

from __future__ import annotations

import tempfile
import traceback
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from critics import dcgan, multilayer_perceptron
from shared_steps import (
    SHARED,
    distance,
    gradients,
    our_pair,
    refusal,
    step,
    stock_pair,
    two_copies,
)
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import ganloss_fast as gf
from ganloss_fast import backends

needs_native = pytest.mark.skipif(not backends.HAS_NATIVE, reason="needs the native extension")
IMAGES = (4, 3, 16, 16)


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))


def both(make, run, dtype=torch.float64):
    """``run(critic, pair)`` with the shared backward and with stock autograd's."""
    results = []
    for critic, pair in zip(two_copies(make, dtype), (our_pair, stock_pair)):
        torch.manual_seed(1)
        results.append((critic, run(critic, pair)))
    return results


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


# ---- precision, memory, machines ---------------------------------------------------------------


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


def worker(rank: int, store: str, folder: str) -> None:
    try:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
        torch.set_num_threads(1)
        torch.manual_seed(0)
        batches = torch.randn(3, 2, 2, *IMAGES, dtype=torch.float64)  # the same in both
        ours, theirs = two_copies(lambda: dcgan(4, 16))
        wrapped = DistributedDataParallel(ours)
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
                ((F.softplus(logits[:4] - logits[4:]).mean() + penalty) / 2).backward()
            assert distance(gradients(ours), gradients(theirs)) < 1e-13
        dist.destroy_process_group()
    except Exception:
        Path(folder, f"failure{rank}").write_text(traceback.format_exc())


@needs_native
@pytest.mark.skipif(not dist.is_available(), reason="torch without distributed")
def test_under_distributed_data_parallel():
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(worker, (f"{folder}/store", folder), nprocs=2)
        failures = [path.read_text() for path in Path(folder).glob("failure*")]
    assert not failures, failures[0]


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
