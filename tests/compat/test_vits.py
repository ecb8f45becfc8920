"""VITS's losses: HiFi-GAN's in float32, with detached real maps."""

from __future__ import annotations

import pytest
import torch
from drop_in_cases import (
    DTYPES,
    assert_same,
    assert_training_agrees,
    draw,
    maps_and_logits,
    waveform_generator,
    waveforms,
)

from ganloss_fast.compat import hifigan, vits

MAPS = [[(2, 3, 7), (2, 1, 7)], [(2, 5)]]


def discriminator_loss(reals, fakes):
    rs = [torch.mean((1 - r.float()) ** 2) for r in reals]
    fs = [torch.mean(f.float() ** 2) for f in fakes]
    return sum(rs) + sum(fs), [r.item() for r in rs], [f.item() for f in fs]


def feature_loss(reals, fakes):
    pairs = [(r.detach(), f) for rs, fs in zip(reals, fakes) for r, f in zip(rs, fs)]
    return 2 * sum((r - f).abs().mean() for r, f in pairs)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_features_are_matched_without_a_gradient_of_the_real_side(dtype):
    assert_same(vits.feature_loss, feature_loss, *draw(MAPS, MAPS, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_computed_in_float32(dtype):
    reals, fakes = draw([(2, 9), (2, 5)], [(2, 9), (2, 5)], dtype=dtype)
    ours, theirs = vits.discriminator_loss(reals, fakes), discriminator_loss(reals, fakes)
    assert ours[0].dtype == theirs[0].dtype == torch.float32
    torch.testing.assert_close(ours[0], theirs[0])
    assert ours[1:] == (pytest.approx(theirs[1]), pytest.approx(theirs[2]))
    maps, others = draw(MAPS, MAPS, dtype=dtype)
    floats = [[[t.float() for t in group] for group in side] for side in (maps, others)]
    torch.testing.assert_close(vits.feature_loss(maps, others), feature_loss(*floats))


def test_the_adversarial_losses_are_hifigans():
    assert vits.discriminator_loss is hifigan.discriminator_loss
    assert vits.generator_loss is hifigan.generator_loss


def test_fifty_steps_agree():
    def step_with(match):
        def step(generator, critic, of_generator, of_critic, noise, real):
            of_generator.zero_grad()
            fake = generator(noise)
            match(critic(real)[1], critic(fake)[1]).backward()
            of_generator.step()

        return step

    torch.manual_seed(0)
    networks = waveform_generator(), maps_and_logits()
    assert_training_agrees(
        step_with(vits.feature_loss), step_with(feature_loss), networks, waveforms
    )
