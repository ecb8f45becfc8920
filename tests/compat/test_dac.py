"""The Descript Audio Codec's GANLoss: fake first, audio signals or tensors."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from drop_in_cases import (
    DTYPES,
    TOLERANCE,
    assert_training_agrees,
    maps_and_logits,
    waveform_generator,
    waveforms,
)
from torch import nn

import ganloss_fast as gf
from ganloss_fast.compat import dac


class Discriminator(nn.Module):
    """A list of feature maps for each part, the last of which is the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = maps_and_logits((4, 4), heads=3)

    def forward(self, x):
        return self.inner(x)[1]


def discriminator_loss(critic, fake, real):
    pairs = zip(critic(fake.detach()), critic(real))
    return sum((f[-1] ** 2).mean() + ((1 - r[-1]) ** 2).mean() for f, r in pairs)


def generator_loss(critic, fake, real):
    fakes, reals = critic(fake), critic(real)
    adversarial = sum(((1 - f[-1]) ** 2).mean() for f in fakes)
    features = sum(
        F.l1_loss(f, r.detach()) for fs, rs in zip(fakes, reals) for f, r in zip(fs[:-1], rs[:-1])
    )
    return adversarial, features


def case(dtype):
    torch.manual_seed(0)
    critic = Discriminator().to(dtype)
    fake, real = torch.randn(2, 2, 1, 16, dtype=dtype)
    return critic, fake.requires_grad_(), real


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("signals", [False, True], ids=["tensors", "signals"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_both_losses_are_the_formulas(dtype, signals, backend):
    critic, fake, real = case(dtype)
    given = [SimpleNamespace(audio_data=x) if signals else x for x in (fake, real)]
    loss = dac.GANLoss(critic)
    leaves = [fake, *critic.parameters()]
    with gf.use_backend(backend):
        pairs = [
            (loss.discriminator_loss(*given), discriminator_loss(critic, fake, real), leaves[1:]),
            *zip(loss.generator_loss(*given), generator_loss(critic, fake, real), (leaves, leaves)),
        ]
    for ours, theirs, inputs in pairs:
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        options = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
        torch.testing.assert_close(ours, theirs, **options)
        gradients = [
            torch.autograd.grad(x, inputs, allow_unused=True, retain_graph=True)
            for x in (ours, theirs)
        ]
        for a, b in zip(*gradients):
            torch.testing.assert_close(a, b, **options)


def test_the_module_holds_the_discriminator_and_runs_it_on_both():
    critic, fake, real = case(torch.float64)
    loss = dac.GANLoss(critic)
    assert dict(loss.named_children()) == {"discriminator": critic}
    fakes, reals = loss(fake, real)
    assert torch.equal(fakes[0][-1], critic(fake)[0][-1])
    assert torch.equal(reals[1][0], critic(real)[1][0])


def test_freezing_leaves_out_the_gradients_that_nobody_uses():
    critic, fake, real = case(torch.float64)
    results = []
    for freeze in (False, True):
        fake.grad = None
        critic.zero_grad()
        adversarial, features = dac.GANLoss(critic, freeze=freeze).generator_loss(fake, real)
        (adversarial + 2 * features).backward()
        assert all((p.grad is None) == freeze for p in critic.parameters())
        results.append(fake.grad)
    assert torch.equal(*results)
    assert all(p.requires_grad for p in critic.parameters())


def test_real_maps_have_no_graph_in_the_generators_step():
    critic, fake, real = case(torch.float64)
    runs = []
    critic.register_forward_pre_hook(
        lambda module, inputs: runs.append((inputs[0] is fake, torch.is_grad_enabled()))
    )
    dac.GANLoss(critic).generator_loss(fake, real)
    assert runs == [(True, True), (False, False)]


def test_both_sides_in_one_forward():
    critic, fake, real = case(torch.float64)
    found = []
    for together in (False, True):
        loss = dac.GANLoss(critic, together=together).discriminator_loss(
            SimpleNamespace(audio_data=fake), real
        )
        found.append([loss, *torch.autograd.grad(loss, list(critic.parameters()))])
    torch.testing.assert_close(*found)
    runs = []
    critic.register_forward_pre_hook(lambda module, inputs: runs.append(len(inputs[0])))
    for _ in range(2):  # the second and the third call: only the second one asks
        dac.GANLoss(critic, together=True).discriminator_loss(fake, real)
    assert runs[0] == runs[-1] == 4
    normalised = dac.GANLoss(nn.Sequential(nn.BatchNorm1d(1), critic), together=True)
    with pytest.raises(ValueError, match="it normalises by its batch"):
        normalised.discriminator_loss(fake, real)


@pytest.mark.parametrize("switches", [{}, {"freeze": True}, {"together": True}], ids=str)
def test_fifty_steps_agree(switches):
    def step_with(of_d, of_g):
        def step(generator, critic, of_generator, of_critic, noise, real):
            fake = generator(noise)
            of_critic.zero_grad()
            of_d(critic, fake, real).backward()
            of_critic.step()
            of_generator.zero_grad()
            adversarial, features = of_g(critic, fake, real)
            (adversarial + 2 * features).backward()
            of_generator.step()

        return step

    torch.manual_seed(0)
    assert_training_agrees(
        step_with(
            lambda critic, *audio: dac.GANLoss(critic, **switches).discriminator_loss(*audio),
            lambda critic, *audio: dac.GANLoss(critic, **switches).generator_loss(*audio),
        ),
        step_with(discriminator_loss, generator_loss),
        (waveform_generator(), Discriminator()),
        waveforms,
    )


def test_a_discriminator_of_another_form_is_explained():
    logits = nn.Conv1d(1, 1, 3)
    loss = dac.GANLoss(logits)
    with pytest.raises(TypeError, match="real: expected a list of outputs"):
        loss.discriminator_loss(*torch.zeros(2, 1, 1, 8))


def test_logits_without_their_maps_are_refused_on_either_side():
    """Of a tensor in place of the list the codebase would take the last sample alone."""
    loss = dac.GANLoss(lambda x: [x, x])
    for step in (loss.discriminator_loss, loss.generator_loss):
        with pytest.raises(TypeError, match=r"\[0\]: expected the list \[maps..., logits\]"):
            step(*torch.zeros(2, 2, 1, 8))
