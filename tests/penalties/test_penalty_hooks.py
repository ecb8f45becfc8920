"""Hooks and second derivatives of a penalty in slices, against plain PyTorch in float64."""

from __future__ import annotations

import by_keyword
import pytest
import torch
from penalty_oracle import hand_written, samples, small_critic
from torch import nn

import ganloss_fast as gf


def wgan_gp(g):
    return 10 * (g.flatten(1).norm(dim=1) - 1).square().mean()


HOOKS = {
    "half": lambda g: g * 0.5,
    "clamp": lambda g: g.clamp(-0.05, 0.05),
    "sign": torch.sign,
    "norm": lambda g: g / (1e-3 + g.norm()),
}


def gradients(critic, penalty):
    critic.zero_grad()
    penalty.backward()
    return [p.grad for p in critic.parameters()]


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("when", ["before", "between"])
def test_a_hook_of_a_parameter_runs_once_on_the_whole_gradient(hook, when):
    x, _ = samples(torch.float64)
    results = []
    for chunk_size in (None, 1, 3):
        critic, seen = small_critic(torch.float64), []

        def register(critic=critic, seen=seen):
            for p in critic.parameters():
                p.register_hook(lambda g, p=p: (seen.append(id(p)), HOOKS[hook](g))[1])
                p.register_post_accumulate_grad_hook(lambda p: seen.append(-id(p)))

        if when == "before":
            register()
        if chunk_size is None:
            penalty = hand_written(critic, x, wgan_gp)
        else:
            penalty = gf.gradient_penalty(
                critic, x, at="real", how=gf.Differentiation(chunk_size=chunk_size)
            )
        if when == "between":
            register()
        assert not seen or chunk_size is None
        results.append((gradients(critic, penalty), len(seen) == len(set(seen))))
    for ours, once in results[1:]:
        assert once
        for a, b in zip(ours, results[0][0], strict=True):
            if not b.any():  # stock's zero of the last bias
                assert a is None or not a.any()
            else:
                assert torch.allclose(a, b, rtol=1e-10, atol=1e-14)


def test_hooks_are_back_after_an_error_and_can_be_removed():
    critic, x = small_critic(), samples()[0]
    seen = []
    handle = critic[0].weight.register_hook(lambda g: seen.append(1))
    scaled = nn.Sequential(critic, nn.Hardsigmoid())  # no second derivative
    with pytest.raises(RuntimeError, match="derivative for"):
        gf.r1_penalty(scaled, x, how=gf.Differentiation(chunk_size=2))
    gf.r1_penalty(critic, x, how=gf.Differentiation(chunk_size=2)).backward()
    assert seen == [1]
    handle.remove()
    gf.r1_penalty(critic, x, how=gf.Differentiation(chunk_size=2)).backward()
    assert seen == [1]


def test_diagnose_runs_no_hook_of_a_parameter():
    critic = small_critic()
    for p in critic.parameters():
        p.register_hook(lambda g: pytest.fail("a hook ran"))
    gf.diagnose(critic, samples()[0], quiet=True)


def test_a_hook_of_a_computed_sample_runs_once_behind_a_view():
    x, _ = samples(torch.float64)
    found = []
    for chunk_size in (None, 1, 3):
        critic, source = small_critic(torch.float64), x.clone().requires_grad_()
        sample, seen = source * 2, []
        sample.register_hook(lambda g, seen=seen: (seen.append(1), g.clamp(-1e-3, 1e-3))[1])
        if chunk_size is not None:
            with pytest.raises(ValueError, match="chunk_size: the samples have hooks"):
                gf.r1_penalty(
                    nn.Sequential(critic, nn.Tanh()),
                    sample,
                    how=gf.Differentiation(chunk_size=chunk_size),
                )
        view = sample.view_as(sample)
        gf.r1_penalty(
            nn.Sequential(critic, nn.Tanh()), view, how=gf.Differentiation(chunk_size=chunk_size)
        ).backward()
        assert seen == [1]
        found.append(source.grad)
    assert torch.allclose(found[1], found[0], rtol=1e-10)
    assert torch.allclose(found[2], found[0], rtol=1e-10)


def test_backward_hooks_of_modules_are_refused_in_slices():
    critic = small_critic()
    critic[2].register_full_backward_hook(lambda module, inputs, outputs: None)
    with pytest.raises(ValueError, match="chunk_size: Conv2d has backward hooks"):
        gf.r1_penalty(critic, samples()[0], how=gf.Differentiation(chunk_size=2))


@pytest.mark.parametrize(
    "penalise", [by_keyword.r1_penalty, gf.approximate_r1_penalty], ids=["R1", "approximate R1"]
)
def test_a_second_derivative_of_a_penalty_in_slices_is_refused(penalise):
    critic = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))
    penalty = penalise(critic, torch.randn(6, 4), chunk_size=2)
    for weight in (1.0, 2.0):
        with pytest.raises(NotImplementedError, match=r"chunk_size: .* create_graph=True"):
            torch.autograd.grad(
                weight * penalty, critic[0].weight, create_graph=True, retain_graph=True
            )
    torch.autograd.grad(penalty, critic[0].weight)
