"""Discriminators of HiFi-GAN, VITS and BigVGAN: the published ones, down to their checkpoints."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from audio_codebases import (
    CONFIGURATION,
    HIFIGAN,
    VITS,
    plain_period,
    plain_resolution,
    plain_scale,
)
from torch.nn.utils import spectral_norm

from ganloss_fast.compat import bigvgan, hifigan, vits

NETWORKS = {
    "hifigan P": (lambda: hifigan.DiscriminatorP(5), lambda: plain_period(5)),
    "hifigan P, spectral": (
        lambda: hifigan.DiscriminatorP(2, use_spectral_norm=True),
        lambda: plain_period(2, spectral_norm),
    ),
    "hifigan S": (hifigan.DiscriminatorS, lambda: plain_scale(HIFIGAN)),
    "hifigan S, spectral": (
        lambda: hifigan.DiscriminatorS(use_spectral_norm=True),
        lambda: plain_scale(HIFIGAN, spectral_norm),
    ),
    "vits S": (vits.DiscriminatorS, lambda: plain_scale(VITS)),
    "bigvgan P": (
        lambda: bigvgan.DiscriminatorP(CONFIGURATION, 3),
        lambda: plain_period(3, multiplier=0.0625),
    ),
    "bigvgan R": (
        lambda: bigvgan.DiscriminatorR(CONFIGURATION, (32, 8, 16)),
        lambda: plain_resolution(32, 8, 16, 2),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_the_published_ones_down_to_their_checkpoints(name):
    build, plain = NETWORKS[name]
    torch.manual_seed(0)
    ours = build()
    torch.manual_seed(0)
    theirs = plain()
    saved, published = ours.state_dict(), theirs.state_dict()
    assert set(saved) == set(published)
    assert all(torch.equal(saved[key], published[key]) for key in saved)
    # An optimizer's state goes by the order of parameters, its groups perhaps by their names.
    names = [[name for name, _ in network.named_parameters()] for network in (ours, theirs)]
    assert names[0] == names[1]
    audio = torch.randn(2, 1, 300)
    for network in (ours, theirs):
        network.train()
    (logits, maps), (wanted, wanted_maps) = ours(audio), theirs(audio)
    torch.testing.assert_close([logits, *maps], [wanted, *wanted_maps])
    # Trained here, gone on with there, and back.
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    theirs.load_state_dict(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours.eval()(audio)[0], theirs.eval()(audio)[0])


@pytest.mark.parametrize(
    ("build", "kinds"),
    [
        (hifigan.MultiPeriodDiscriminator, [hifigan.DiscriminatorP] * 5),
        (hifigan.MultiScaleDiscriminator, [hifigan.DiscriminatorS] * 3),
        (vits.MultiPeriodDiscriminator, [vits.DiscriminatorS, *[hifigan.DiscriminatorP] * 5]),
    ],
    ids=["hifigan MPD", "hifigan MSD", "vits MPD"],
)
def test_families_hold_the_published_parts(build, kinds):
    with torch.device("meta"):
        family = build()
    parts = family.discriminators
    assert [type(part) for part in parts] == kinds
    periods = [part.period for part in parts if isinstance(part, hifigan.DiscriminatorP)]
    assert periods in ([], [2, 3, 5, 7, 11])
    spectral = [hasattr(part.conv_post, "weight_orig") for part in parts]
    assert spectral == [build is hifigan.MultiScaleDiscriminator, *[False] * (len(parts) - 1)]
    assert all(key.startswith("discriminators.") for key in family.state_dict())


def test_vits_may_have_spectral_norms_everywhere():
    with torch.device("meta"):
        family = vits.MultiPeriodDiscriminator(use_spectral_norm=True)
    assert all(hasattr(part.conv_post, "weight_orig") for part in family.discriminators)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: bigvgan.DiscriminatorR(CONFIGURATION, (32, 8)),
            r"resolution: expected the size .* got \(32, 8\)",
        ),
        (
            lambda: bigvgan.MultiResolutionDiscriminator(
                SimpleNamespace(**{**vars(CONFIGURATION), "resolutions": [(32, 8, 16)]})
            ),
            "cfg.resolutions: expected three, got 1",
        ),
    ],
)
def test_resolutions_that_are_none_are_explained(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_the_first_configuration_for_resolutions_counts():
    own = SimpleNamespace(
        **{**vars(CONFIGURATION), "mrd_use_spectral_norm": True, "mrd_channel_mult": 0.125}
    )
    part = bigvgan.DiscriminatorR(own, (32, 8, 16))
    assert hasattr(part.conv_post, "weight_orig")
    assert part.conv_post.in_channels == 4
