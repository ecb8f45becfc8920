"""Penalties as values: what they hold, what a name stands for, and what goes with the call."""

from __future__ import annotations

import dataclasses
import inspect
import pickle
import typing

import by_keyword
import pytest
import torch
from torch import Tensor, nn

import ganloss_fast as gf
from ganloss_fast.penalties import table

D = torch.float64


@pytest.fixture
def critic() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 1, 3)).to(D)


def samples() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    real, fake = (torch.randn(3, 3, 8, 8, generator=generator, dtype=D) for _ in range(2))
    return real, fake


def gradient(critic, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(critic(x).sum(), x)[0]


def norms(g: Tensor) -> Tensor:
    return g.flatten(1).norm(dim=1)


# ---- values --------------------------------------------------------------------------------------


def test_the_weight_of_r1_is_half_of_gamma(critic):
    real, _ = samples()
    wanted = 3.0 / 2 * norms(gradient(critic, real)).square().mean()
    for penalty in (
        gf.r1_penalty(critic, real, gf.R1(gamma=3.0)),
        gf.gradient_penalty(critic, real, penalty=gf.R1(3.0)),
        gf.penalty_from_grads(gradient(critic, real), gf.R1(gamma=torch.tensor(3.0))),
    ):
        torch.testing.assert_close(penalty.detach(), wanted, rtol=1e-12, atol=0)


def test_a_value_takes_its_penalty_where_its_paper_does(critic):
    real, fake = samples()
    at_fake = 5 * norms(gradient(critic, fake)).square().mean()
    for penalty in (gf.R2(), "r2"):
        found = gf.gradient_penalty(critic, real, fake, penalty).detach()
        torch.testing.assert_close(found, at_fake, rtol=1e-12, atol=0)
    # R1 under `at`, and R2 of gradients that were taken at real samples
    torch.testing.assert_close(
        gf.gradient_penalty(critic, real, fake, "r1", at="fake").detach(), at_fake
    )
    at_real = 5 * norms(gradient(critic, real)).square().mean()
    torch.testing.assert_close(gf.penalty_from_grads(gradient(critic, real), gf.R2()), at_real)


def test_the_general_form_says_that_it_needs_a_place(critic):
    real, fake = samples()
    with pytest.raises(ValueError, match="at: a NormPenalty does not say where"):
        gf.gradient_penalty(critic, real, fake, gf.NormPenalty(1.0))


def test_the_weight_of_a_call_takes_the_place_of_the_values(critic):
    real, fake = samples()
    for penalty in ("wgan-gp", gf.WGANGP(weight=3.0)):
        for weight in (0.5, torch.tensor(0.5, dtype=D)):
            found = gf.gradient_penalty(critic, real, fake, penalty, alpha=0.3, weight=weight)
            x_hat = 0.3 * real + 0.7 * fake
            wanted = 0.5 * (norms(gradient(critic, x_hat)) - 1).square().mean()
            torch.testing.assert_close(found.detach(), wanted, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: gf.WGANGP(wieght=2), TypeError, "wieght"),
        (lambda: gf.WGANGP(one_sided="no"), TypeError, "one_sided: expected True or False"),
        (lambda: gf.WGANGP(norm="pixel"), ValueError, "norm: expected one of"),
        (lambda: gf.R1(gamma="ten"), TypeError, "gamma: expected a number"),
        (lambda: gf.R1(gamma=torch.ones(2)), ValueError, "gamma: expected a number or a 0-d"),
        (lambda: gf.R1(target=1.0), TypeError, "target"),
        (lambda: gf.NormPenalty(power=0), ValueError, "power: expected a number > 0"),
        (lambda: gf.Differentiation(graph_cut="on"), ValueError, "graph_cut: expected one of"),
        (lambda: gf.Differentiation(chunk_size=0), ValueError, "chunk_size: expected at least 1"),
        (lambda: gf.GradientPenalty("wgangp"), ValueError, "Did you mean wgan-gp"),
        (lambda: gf.GradientPenalty(wieght=2), TypeError, "there is no option 'wieght'"),
        (lambda: table.resolve_penalty(gf.R1), TypeError, r"Create one: R1\(\)"),
        (lambda: table.resolve_penalty(3), TypeError, r"penalty: expected a name or a penalty"),
    ],
)
def test_values_are_checked_when_they_are_made(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_a_penalty_in_the_place_of_fake_samples_is_explained(critic):
    for penalty in (gf.R1(), "r1"):
        with pytest.raises(TypeError, match=r"Write gradient_penalty\(critic, real, penalty="):
            gf.gradient_penalty(critic, samples()[0], penalty)


@pytest.mark.parametrize("function", [gf.r1_penalty, gf.r2_penalty])
def test_r1_is_no_place_for_another_penalty(critic, function):
    with pytest.raises(TypeError, match=r"penalty: expected R1\(gamma=...\), got WGANGP"):
        function(critic, samples()[0], gf.WGANGP())


VALUES = {
    "a tensor": lambda: gf.R1(gamma=torch.tensor(2.0)),
    "numbers": lambda: gf.WGANGP(one_sided=True, eps=1e-4),
    "a loss with a map": lambda: gf.LeastSquares(real_label=torch.ones(3)),
    "a loss": lambda: gf.Hinge(margin=0.5),
    "how": lambda: gf.Differentiation(chunk_size=2),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_compare_without_raising(name):
    value, other = VALUES[name](), VALUES[name]()
    holds_tensor = any(isinstance(v, Tensor) for v in vars(value).values())
    assert value == value
    assert (value == other) is not holds_tensor
    assert hash(value) == hash(value)
    assert value in {value}
    assert value != gf.BCE()
    assert dataclasses.replace(value) == value
    assert type(pickle.loads(pickle.dumps(value))) is type(value)


def test_a_module_moves_the_tensors_of_a_value():
    module = gf.GradientPenalty(gf.R1(gamma=torch.tensor(2.0)), how=gf.Differentiation())
    assert "penalty" in repr(gf.GradientPenalty())
    (name,) = dict(module.named_buffers())
    assert name == "gamma"
    module.to(D)
    value = module.options["penalty"]
    assert value.gamma.dtype == value.weight.dtype == D
    assert value.weight == 1.0


# ---- names ---------------------------------------------------------------------------------------


def test_the_names_are_those_that_an_editor_completes():
    assert typing.get_args(table.PenaltyName) == tuple(gf.PENALTIES)


@pytest.mark.parametrize("name", gf.PENALTIES)
def test_every_row_has_a_source_and_a_place_and_runs(critic, name):
    row = gf.PENALTIES[name]
    assert len(row.source) > 4
    real, fake = samples()
    torch.manual_seed(1)
    by_name = gf.gradient_penalty(critic, real, fake, name)
    torch.manual_seed(1)
    spelt = gf.gradient_penalty(critic, real, fake, row.penalty, at=row.where, alpha=row.alpha)
    assert by_name.isfinite()
    torch.testing.assert_close(by_name, spelt, rtol=0, atol=0)


def per_pixel(g: Tensor) -> Tensor:
    return g.norm(dim=1)


# name: the penalty of the gradient, by hand, from each codebase's own lines
FORMULAS = {
    "wgan-gp": lambda g: 10 * (norms(g) - 1).square().mean(),
    "wgan-lp": lambda g: 10 * (norms(g) - 1).clamp(min=0).square().mean(),
    "0-gp": lambda g: 10 * norms(g).square().mean(),
    "dragan": lambda g: 10 * (norms(g) - 1).square().mean(),
    "r1": lambda g: 10 / 2 * g.square().sum() / len(g),
    "r2": lambda g: 10 / 2 * g.square().sum() / len(g),
    "max-gp": lambda g: 10 * norms(g).max().square(),
    "wgan-div": lambda g: 2 / 2 * g.square().flatten(1).sum(1).pow(6 / 2).mean(),
    "cyclegan": lambda g: 10 * ((g.flatten(1) + 1e-16).norm(2, dim=1) - 1).square().mean(),
    "mmagic": lambda g: (per_pixel(g) - 1).square().mean(),
    "mmagic-r1": lambda g: per_pixel(g).square().mean(),
    "singan": lambda g: 0.1 * (per_pixel(g) - 1).square().mean(),
    "torchgan": lambda g: 10 * (g.norm() - 1).square(),
    "pytorch-gan-dragan": lambda g: 10 * (per_pixel(g) - 1).square().mean(),
    "torchgan-dragan": lambda g: 10 * (g.norm() - 1).square(),
    "tf-gan": lambda g: ((g.square().flatten(1).sum(1) + 1e-10).sqrt() - 1).square().mean(),
    "compare-gan": lambda g: ((g.square().flatten(1).sum(1) + 1e-4).sqrt() - 1).square().mean(),
    "compare-gan-dragan": lambda g: (
        ((g.square().flatten(1).sum(1) + 1e-4).sqrt() - 1).square().mean()
    ),
    "zoo": lambda g: 10 * (norms(g) - 1).square().sum(),
    "gigagan": lambda g: 10 * norms(g).square().mean(),
    "diffusers": lambda g: 10 * (norms(g) - 1).square().mean(),
    "stargan-v2": lambda g: 0.5 * g.square().flatten(1).sum(1).mean(),
    "lama": lambda g: 0.001 * g.square().flatten(1).sum(1).mean(),
}


def test_every_row_has_a_formula():
    assert list(FORMULAS) == list(gf.PENALTIES)


@pytest.mark.parametrize("name", FORMULAS)
def test_a_row_is_what_its_source_computes(name):
    g = torch.randn(4, 3, 5, 5, dtype=D)
    torch.testing.assert_close(
        gf.penalty_from_grads(g, name), FORMULAS[name](g), rtol=1e-12, atol=0
    )


# ---- the call ------------------------------------------------------------------------------------


def test_the_gradients_come_beside_the_penalty(critic):
    real, fake = samples()
    penalty, (g,) = gf.gradient_penalty_details(critic, real, fake, alpha=0.3)
    torch.testing.assert_close(g.detach(), gradient(critic, 0.3 * real + 0.7 * fake))
    torch.testing.assert_close(penalty, gf.gradient_penalty(critic, real, fake, alpha=0.3))
    assert g.requires_grad  # CycleGAN's code may use them
    with pytest.raises(ValueError, match="how: gradients computed with chunk_size have no graph"):
        gf.gradient_penalty_details(critic, real, fake, how=gf.Differentiation(chunk_size=1))


def test_arguments_go_by_position_or_by_name_or_with_the_critic():
    layer = nn.Linear(3, 1).to(D)

    def critic(x: Tensor, shift: Tensor, gain: float = 1.0) -> Tensor:
        return layer(x * gain + shift).square()

    x, shift = torch.randn(4, 3, dtype=D), torch.randn(4, 3, dtype=D)
    wanted = gf.r1_penalty(lambda z: critic(z, shift, 2.0), x)
    for call, critic_args in (
        (critic, (shift, 2.0)),
        (critic, {"gain": 2.0, "shift": shift}),
        (gf.Call(critic, (shift,), {"gain": 2.0}), ()),
        (gf.Call(critic), {"shift": shift, "gain": 2.0}),
    ):
        for how in (gf.Differentiation(), gf.Differentiation(chunk_size=3)):
            found = gf.r1_penalty(call, x, critic_args=critic_args, how=how)
            torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)


def test_a_graph_that_exists_cannot_be_cut_into_slices(critic):
    how = gf.Differentiation(chunk_size=1)
    real = samples()[0].requires_grad_()
    logits = critic(real)
    with pytest.raises(ValueError, match="how: there is no chunk_size here"):
        gf.penalty_from_logits(logits, real, how=how)
    latents = torch.randn(3, 5, dtype=D, requires_grad=True)
    images = latents.sum() * real.detach()
    with pytest.raises(ValueError, match="how: there is no chunk_size here"):
        gf.path_length_penalty(images, latents, torch.zeros((), dtype=D), how=how)


def test_no_public_function_has_more_than_twelve_parameters():
    for name in gf.__all__:
        public = getattr(gf, name)
        if callable(public):
            assert len(inspect.signature(public).parameters) <= 12, name


def test_values_work_in_a_compiled_step(critic):
    real, fake = samples()

    @torch.compile(backend="aot_eager", fullgraph=True)
    def step(real: Tensor, fake: Tensor, weight: Tensor) -> Tensor:
        first = gf.gradient_penalty(
            critic, real, fake, gf.WGANGP(one_sided=True), alpha=0.3, weight=weight
        )
        return (
            first
            + gf.r1_penalty(critic, real, gf.R1(gamma=weight))
            + gf.gradient_penalty(critic, real, penalty="r1")
        )

    weight = torch.tensor(0.7, dtype=D)
    one_sided = 0.7 * (norms(gradient(critic, 0.3 * real + 0.7 * fake)) - 1).clamp(min=0).square()
    r1 = norms(gradient(critic, real)).square().mean()
    wanted = one_sided.mean() + 0.35 * r1 + 5 * r1
    torch.testing.assert_close(step(real, fake, weight).detach(), wanted, rtol=1e-10, atol=0)


def test_flat_keywords_of_the_tests_reach_the_call(critic):
    real, fake = samples()
    options = {"target": 0.5, "graph_cut": "off", "alpha": 0.3, "weight": 2.0}
    found = by_keyword.gradient_penalty(critic, real, fake, **options)
    wanted = 2 * (norms(gradient(critic, 0.3 * real + 0.7 * fake)) - 0.5).square().mean()
    torch.testing.assert_close(found.detach(), wanted, rtol=1e-12, atol=0)
