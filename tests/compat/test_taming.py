"""taming-transformers: losses with their half, the adaptive weight, and its way to one backward."""

from __future__ import annotations

import inspect

import pytest
import torch
import torch.nn.functional as F
from drop_in_cases import DTYPES, assert_same, assert_training_agrees, draw
from torch import nn

import ganloss_fast as gf
from ganloss_fast.compat import taming

SHAPES = [(2, 1, 5, 6), (3, 1, 4, 4)]


def hinge_d_loss(real, fake):
    return 0.5 * (F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean())


def vanilla_d_loss(real, fake):
    return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())


def calculate_adaptive_weight(nll, g, last, discriminator_weight=1.0):
    a = torch.autograd.grad(nll, last, retain_graph=True)[0]
    b = torch.autograd.grad(g, last, retain_graph=True)[0]
    ratio = torch.norm(a) / (torch.norm(b) + 1e-4)
    return torch.clamp(ratio, 0.0, 1e4).detach() * discriminator_weight


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("ours", "plain"),
    [(taming.hinge_d_loss, hinge_d_loss), (taming.vanilla_d_loss, vanilla_d_loss)],
    ids=["hinge", "vanilla"],
)
def test_the_half_is_inside(ours, plain, dtype, backend):
    with gf.use_backend(backend):
        assert_same(ours, plain, *draw(*SHAPES, dtype=dtype))


@pytest.mark.parametrize("weight", [0.7, torch.tensor(0.7), "a schedule's"])
def test_weights_are_adopted_at_their_step(weight):
    assert taming.adopt_weight(weight, 9, threshold=10) == 0.0
    assert taming.adopt_weight(weight, 10, threshold=10) is weight
    assert taming.adopt_weight(weight, 3, threshold=10, value=0.1) == 0.1
    assert taming.adopt_weight(weight, 0) is weight


def test_signatures_are_the_published_ones():
    assert str(inspect.signature(taming.adopt_weight)).startswith("(weight: ")
    names = {
        taming.hinge_d_loss: ["logits_real", "logits_fake"],
        taming.vanilla_d_loss: ["logits_real", "logits_fake"],
        taming.adopt_weight: ["weight", "global_step", "threshold", "value"],
        taming.calculate_adaptive_weight: ["nll_loss", "g_loss", "last_layer"],
    }
    for function, wanted in names.items():
        assert list(inspect.signature(function).parameters)[: len(wanted)] == wanted


@pytest.mark.parametrize("size", [1.0, 1e-9, 1e9], ids=str)
def test_the_adaptive_weight_is_the_bounded_ratio(size):
    layer = nn.Linear(3, 3).double()
    y = layer(torch.randn(4, 3, dtype=torch.float64))
    losses = [y.square().mean(), size * y.sum()]
    ours, plain = (
        f(*losses, layer.weight, 0.8)
        for f in (taming.calculate_adaptive_weight, calculate_adaptive_weight)
    )
    torch.testing.assert_close(ours, plain, rtol=1e-13, atol=0)
    assert ours.shape == ()
    assert not ours.requires_grad


# ---- a training --------------------------------------------------------------------------------


class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x):
        latents = self.encoder(x)
        return self.last(latents.tanh()), latents


def step_of(adaptive, d_loss):
    def step(model, critic, of_model, of_critic, images):
        found, latents = model(images)
        nll, g = (found - images).abs().mean(), -critic(found).mean()
        of_model.zero_grad()
        weight = adaptive(nll, g, model.last.weight, 0.8)
        (nll + weight * g + latents.square().mean()).backward()
        of_model.step()
        of_critic.zero_grad()
        d_loss(critic(images), critic(found.detach())).backward()
        of_critic.step()

    return step


def in_one_backward(model, critic, of_model, of_critic, images):
    """The step that the docstring of calculate_adaptive_weight leads to."""
    found, latents = model(images)
    nll, g = (found - images).abs().mean(), -critic(found).mean()
    of_model.zero_grad()
    gf.balanced_backward(
        [nll, g],
        found,
        model.last.weight,
        weights=[1.0, 0.8],
        extra_loss=latents.square().mean(),
    )
    of_model.step()
    of_critic.zero_grad()
    taming.hinge_d_loss(critic(images), critic(found.detach())).backward()
    of_critic.step()


OURS = step_of(taming.calculate_adaptive_weight, taming.hinge_d_loss)


@pytest.mark.parametrize("ours", [OURS, in_one_backward], ids=["drop-in", "one backward"])
def test_fifty_steps_agree(ours):
    torch.manual_seed(0)
    networks = Autoencoder(), nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Conv2d(4, 1, 3))
    assert_training_agrees(
        ours,
        step_of(calculate_adaptive_weight, hinge_d_loss),
        networks,
        lambda draws: (torch.rand(2, 3, 8, 8, generator=draws),),
    )


def test_wrong_logits_are_explained():
    with pytest.raises(TypeError, match="real: expected a tensor"):
        taming.hinge_d_loss(1.0, torch.zeros(2))
    with pytest.raises(ValueError, match=r"expected a flat sequence of tensors, but entry 0"):
        taming.vanilla_d_loss([[torch.zeros(2)]], torch.zeros(2))


def test_losses_compile_in_one_graph(fresh_compiler):
    logits = [t.detach() for t in draw(*SHAPES, dtype=torch.float32)]
    for loss in (taming.hinge_d_loss, taming.vanilla_d_loss):
        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(*logits), loss(*logits))
