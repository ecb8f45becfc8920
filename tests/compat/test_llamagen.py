"""LlamaGen: its losses as they are named, and as they are published."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F
from drop_in_cases import DTYPES, assert_same, assert_training_agrees, draw
from torch import nn

import ganloss_fast as gf
from ganloss_fast.compat import llamagen, taming

SHAPES = [(2, 1, 5, 6), (2, 1, 4, 4)]
bce = F.binary_cross_entropy_with_logits


def non_saturating_d_loss(real, fake):
    return 0.5 * (bce(real, torch.ones_like(real)) + bce(fake, torch.zeros_like(fake)))


def published_d_loss(real, fake):
    """Input and target the wrong way round."""
    return 0.5 * (bce(torch.ones_like(real), real) + bce(torch.zeros_like(fake), fake))


CASES = {
    "non-saturating D": (llamagen.non_saturating_d_loss, non_saturating_d_loss, 2),
    "published D": (
        functools.partial(llamagen.non_saturating_d_loss, reversed_as_published=True),
        published_d_loss,
        2,
    ),
    "hinge G": (llamagen.hinge_gen_loss, lambda fake: -fake.mean(), 1),
    "non-saturating G": (
        llamagen.non_saturating_gen_loss,
        lambda fake: bce(fake, torch.ones_like(fake)),
        1,
    ),
    "published G": (
        functools.partial(llamagen.non_saturating_gen_loss, reversed_as_published=True),
        lambda fake: bce(torch.ones_like(fake), fake),
        1,
    ),
}


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("ours", "plain", "sides"), CASES.values(), ids=CASES)
def test_losses_are_those_of_the_formulas(ours, plain, sides, dtype, backend):
    with gf.use_backend(backend):
        inputs = draw(*SHAPES, dtype=dtype)
        assert_same(ours, plain, *inputs[2 - sides :])


def test_the_published_loss_teaches_nothing_about_fakes_and_is_off_by_default():
    real, fake = draw(*SHAPES)
    llamagen.non_saturating_d_loss(real, fake, reversed_as_published=True).backward()
    assert not fake.grad.any()
    llamagen.non_saturating_d_loss(real, fake).backward()
    assert fake.grad.all()


def test_the_rest_is_tamings():
    for name in ("hinge_d_loss", "vanilla_d_loss", "adopt_weight", "calculate_adaptive_weight"):
        assert getattr(llamagen, name) is getattr(taming, name)


@pytest.mark.parametrize("published", [False, True])
def test_fifty_steps_agree(published):
    def step_with(d_loss, g_loss):
        def step(generator, critic, of_generator, of_critic, noise, real):
            fake = generator(noise)
            of_generator.zero_grad()
            g_loss(critic(fake)).backward()
            of_generator.step()
            of_critic.zero_grad()
            d_loss(critic(real), critic(fake.detach())).backward()
            of_critic.step()

        return step

    prefix = "published" if published else "non-saturating"
    (d_ours, d_plain, _), (g_ours, g_plain, _) = CASES[f"{prefix} D"], CASES[f"{prefix} G"]
    torch.manual_seed(0)
    networks = nn.Linear(3, 4), nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    assert_training_agrees(
        step_with(d_ours, g_ours),
        step_with(d_plain, g_plain),
        networks,
        lambda draws: (torch.randn(6, 3, generator=draws), torch.randn(6, 4, generator=draws)),
    )
