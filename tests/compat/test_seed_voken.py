"""SEED-Voken: a non-saturating loss of mean logits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from drop_in_cases import DTYPES, assert_same, assert_training_agrees, draw
from torch import nn

import ganloss_fast as gf
from ganloss_fast.compat import seed_voken, taming


def gen_loss(fake):
    means = fake.reshape(fake.shape[0], -1).mean(-1)
    return F.binary_cross_entropy_with_logits(means, torch.ones_like(means))


def d_loss(real, fake):
    reals, fakes = (t.reshape(t.shape[0], -1).mean(-1) for t in (real, fake))
    of_real = F.binary_cross_entropy_with_logits(reals, torch.ones_like(reals))
    return of_real + F.binary_cross_entropy_with_logits(fakes, torch.zeros_like(fakes))


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_logit_of_a_sample_is_its_mean(dtype, backend):
    real, fake = draw((3, 1, 4, 5), (3, 1, 2, 2), dtype=dtype)
    with gf.use_backend(backend):
        assert_same(seed_voken.non_saturate_gen_loss, gen_loss, fake)
        assert_same(seed_voken.non_saturate_discriminator_loss, d_loss, real, fake)


def test_samples_without_patches_are_refused():
    with pytest.raises(ValueError, match="logits_fake: expected patches for each sample"):
        seed_voken.non_saturate_gen_loss(torch.zeros(3))


def test_the_rest_is_tamings():
    for name in ("hinge_d_loss", "vanilla_d_loss", "adopt_weight", "calculate_adaptive_weight"):
        assert getattr(seed_voken, name) is getattr(taming, name)


def test_fifty_steps_agree():
    def step_with(of_d, of_g):
        def step(generator, critic, of_generator, of_critic, noise, real):
            fake = generator(noise)
            of_generator.zero_grad()
            of_g(critic(fake)).backward()
            of_generator.step()
            of_critic.zero_grad()
            of_d(critic(real), critic(fake.detach())).backward()
            of_critic.step()

        return step

    torch.manual_seed(0)
    networks = nn.Conv2d(3, 3, 3, padding=1), nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh())
    ours = step_with(seed_voken.non_saturate_discriminator_loss, seed_voken.non_saturate_gen_loss)
    assert_training_agrees(
        ours,
        step_with(d_loss, gen_loss),
        networks,
        lambda draws: tuple(torch.randn(2, 2, 3, 6, 6, generator=draws).unbind()),
    )
