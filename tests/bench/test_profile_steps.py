"""The profile against a count by hand: what the steps of bench/steps throw away."""

from __future__ import annotations

import itertools

import pytest
import torch

pytest.importorskip("jinja2", reason="the bench extras are not installed")
pytest.importorskip("matplotlib", reason="the bench extras are not installed")
pytest.importorskip("rich", reason="the bench extras are not installed")

from profiled_players import AGAIN, DEAD, GENERATOR, GENERATOR_AGAIN, REAL, SECOND_WAY, WEIGHTS

from ganloss_fast.bench.profile import findings
from ganloss_fast.bench.profile.target import Target
from ganloss_fast.bench.steps import (
    audio,
    classes,
    images,
    layouts,
    penalised,
    spectra,
    styles,
    tokenizers,
    vocoders,
)
from ganloss_fast.bench.workload import EAGER

CPU = torch.device("cpu")
UNUSED = (
    "forwards of the perceptual network in the discriminator's step, of which no optimizer uses "
    "the result"
)


def profile_of(form) -> findings.Profile:
    t = form.training
    perceptual = [] if t.perceptual is None else [t.perceptual]
    target = Target("step", lambda: form(), [t.discriminator], [t.generator], perceptual)
    return findings.profile(target)


def flops_of(profile: findings.Profile) -> dict[str, int]:
    return {each.what: each.cost.flops for each in profile.findings if each.cost.flops}


def convolution(before: int, after: int, kernel: int, extent: int) -> int:
    """FLOPs, of two images."""
    return 2 * 2 * before * after * kernel**2 * extent**2


def patchgan(size: int, width: int) -> list[int]:
    channels = [3, width, 2 * width, 4 * width]
    layers = [
        convolution(before, after, 4, size >> (k + 1))
        for k, (before, after) in enumerate(itertools.pairwise(channels))
    ]
    return [*layers, convolution(4 * width, 1, 4, (size >> 3) - 1)]


def plain_convolutions(size: int, width: int, count: int) -> list[int]:
    channels = [3, *[width] * (count + 1), 3]
    return [convolution(a, b, 3, size) for a, b in itertools.pairwise(channels)]


def test_taming():
    size, width = 16, 4
    g, d = plain_convolutions(size, width, 4), patchgan(size, width)
    p = sum(g)  # the perceptual network is built alike
    profile = profile_of(images.taming_step(CPU, size, width)[EAGER])
    of_generator = sum(g) + 2 * p + sum(d)  # forward
    of_generator += p + g[-1] + sum(d) + g[-1]  # two gradients at the last layer
    of_generator += p + sum(d) + 2 * sum(g) - g[0]  # the backward
    of_discriminator = sum(g) + 2 * p + 2 * sum(d) + 2 * (2 * sum(d) - d[0])
    assert profile.ledger.total().flops == of_generator + of_discriminator
    assert flops_of(profile) == {UNUSED: 2 * p, SECOND_WAY: p + sum(d)}
    assert profile.together.flops == 3 * p + sum(d)
    assert any("after its weights moved" in note for note in profile.notes)


def test_esrgan():
    d = sum(patchgan(16, 4))
    profile = profile_of(images.esrgan_step(CPU, 16, 4)[EAGER])
    # The fake samples' forward in both steps, and again; the real ones' in both steps.
    assert flops_of(profile) == {AGAIN: 3 * d}


def test_wgan_gp():
    width, batch = 16, 8
    g = [2 * batch * a * b for a, b in itertools.pairwise([100, 128, 8, 16, 32, 784])]
    d = [2 * batch * a * b for a, b in itertools.pairwise([784, width, width // 2, 1])]
    profile = profile_of(penalised.wgan_gp_step(CPU, width, batch)[EAGER])
    of_generator = 5 * (2 * sum(g) - g[0] + d[0])
    assert flops_of(profile) == {
        GENERATOR: of_generator,
        GENERATOR_AGAIN: sum(g),  # its own step takes the noise of the last iteration
        DEAD: 5 * 2 * (d[0] + d[1]),
        WEIGHTS: sum(d),
    }
    assert profile.together.flops == sum(flops_of(profile).values())


SAMPLES = "gradients of the samples in the discriminator's step, which nothing uses"


@pytest.mark.parametrize(
    ("build", "shares"),
    [
        # a survey of the published code, by hand, says the same
        (penalised.ctgan_step, {GENERATOR: 0.19, DEAD: 0.21, WEIGHTS: 0.02}),
        (audio.dac_step, {WEIGHTS: 0.10}),
        (audio.parallel_wavegan_step, {WEIGHTS: 0.10, AGAIN: 0.10}),
        (
            lambda device: vocoders.hifigan_step(device, 1024, vocoders.narrow(8)),
            {WEIGHTS: 0.08, REAL: 0.17},
        ),
        (
            lambda device: vocoders.bigvgan_step(device, 1024, 4),
            {WEIGHTS: 0.085, REAL: 0.16},
        ),
        (lambda device: layouts.spade_step(device, 32, 4), {WEIGHTS: 0.095, SAMPLES: 0.03}),
        # Their trainers rest the side whose turn it is not.
        (lambda device: spectra.encodec_step(device, 1024, 4), {}),
        (lambda device: classes.biggan_step(device, 4, 4, 2), {}),
    ],
    ids=[
        "CTGAN",
        "DAC",
        "ParallelWaveGAN",
        "HiFi-GAN",
        "BigVGAN",
        "SPADE",
        "EnCodec",
        "BigGAN",
    ],
)
def test_shares_of_the_flops(build, shares):
    profile = profile_of(build(CPU)[EAGER])
    whole = profile.ledger.total().flops
    found = {what: flops / whole for what, flops in flops_of(profile).items()}
    assert found == pytest.approx(shares, abs=0.012)
    assert profile.together.flops / whole == pytest.approx(sum(shares.values()), abs=0.02)


def test_llamagen():
    size, width = 32, 8
    p = sum(plain_convolutions(size, width, 4))  # of the perceptual network, one way back
    layers = [(3, 8, 16), (8, 16, 8), (16, 32, 4), (32, 64, 3), (64, 1, 2)]
    d = sum(convolution(before, after, 4, extent) for before, after, extent in layers)
    profile = profile_of(tokenizers.llamagen_step(CPU, size, width)[EAGER])
    # The second way computes the discriminator's weight gradients as well.
    assert flops_of(profile) == {SECOND_WAY: p + 2 * d, WEIGHTS: d, AGAIN: d}
    assert profile.together.flops == p + 3 * d


def test_a_filter_that_learns_nothing_counts_by_the_time_it_takes():
    """The second order of StyleGAN2's filter has few products, and takes a twelfth of the step."""
    profile = profile_of(styles.stylegan2_ada_step(CPU)[EAGER])
    whole = profile.ledger.total()
    (found,) = (each for each in profile.findings if each.what == DEAD)
    assert found.cost.flops < findings.WORTH_SAYING * whole.flops
    assert found.cost.seconds > findings.WORTH_SAYING_BY_TIME * whole.seconds
