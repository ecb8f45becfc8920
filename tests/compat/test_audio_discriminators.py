"""Discriminators of HiFi-GAN, VITS and BigVGAN: the published ones, with fewer forwards."""

from __future__ import annotations

import copy
import warnings
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from drop_in_cases import TOLERANCE, assert_training_agrees, waveform_generator
from torch import nn
from torch.nn.utils import spectral_norm

import ganloss_fast as gf
from ganloss_fast.compat import bigvgan, hifigan, vits
from ganloss_fast.compat._audio_discriminators import OfScale, Pairs

CONFIGURATION = SimpleNamespace(
    mpd_reshapes=[2, 3],
    use_spectral_norm=False,
    discriminator_channel_mult=0.0625,
    resolutions=[(32, 8, 16), (16, 4, 16), (8, 4, 8)],
)


# ---- as published, written out -----------------------------------------------------------------


def old_weight_norm(layer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(layer)


class PlainPart(nn.Module):
    """Convolutions given as (kind, arguments), all with one norm."""

    def __init__(self, layers, last, norm=old_weight_norm, prepare=lambda x: x):
        super().__init__()
        self.convs = nn.ModuleList([norm(kind(*a, **k)) for kind, a, k in layers])
        kind, a, k = last
        self.conv_post = norm(kind(*a, **k))
        self.prepare = prepare

    def forward(self, x):
        maps, x = [], self.prepare(x)
        for layer in self.convs:
            x = F.leaky_relu(layer(x), 0.1)
            maps.append(x)
        x = self.conv_post(x)
        maps.append(x)
        return torch.flatten(x, 1, -1), maps


def folded(period):
    def fold(x):
        b, c, t = x.shape
        if t % period != 0:
            x = F.pad(x, (0, period - t % period), "reflect")
        return x.view(b, c, x.shape[2] // period, period)

    return fold


def plain_period(period, norm=old_weight_norm, multiplier=1.0):
    widths = [1, *(int(w * multiplier) for w in (32, 128, 512, 1024, 1024))]
    layers = [
        (nn.Conv2d, (a, b, (5, 1), (s, 1)), {"padding": (2, 0)})
        for a, b, s in zip(widths, widths[1:], (3, 3, 3, 3, 1))
    ]
    last = (nn.Conv2d, (widths[-1], 1, (3, 1), 1), {"padding": (1, 0)})
    return PlainPart(layers, last, norm, folded(period))


def plain_scale(rows, norm=old_weight_norm):
    layers = [
        (nn.Conv1d, (a, b, size, step), {"groups": groups, "padding": padding})
        for a, b, size, step, groups, padding in rows
    ]
    return PlainPart(layers, (nn.Conv1d, (rows[-1][1], 1, 3, 1), {"padding": 1}), norm)


HIFIGAN = [
    (1, 128, 15, 1, 1, 7),
    (128, 128, 41, 2, 4, 20),
    (128, 256, 41, 2, 16, 20),
    (256, 512, 41, 4, 16, 20),
    (512, 1024, 41, 4, 16, 20),
    (1024, 1024, 41, 1, 16, 20),
    (1024, 1024, 5, 1, 1, 2),
]
VITS = [
    (1, 16, 15, 1, 1, 7),
    (16, 64, 41, 4, 4, 20),
    (64, 256, 41, 4, 16, 20),
    (256, 1024, 41, 4, 64, 20),
    (1024, 1024, 41, 4, 256, 20),
    (1024, 1024, 5, 1, 1, 2),
]


def plain_resolution(size, hop, window, width):
    def magnitudes(x):
        x = F.pad(x, (int((size - hop) / 2), int((size - hop) / 2)), mode="reflect").squeeze(1)
        frames = x.unfold(1, size, hop)
        left = (size - window) // 2
        kept = F.pad(torch.ones(window, dtype=x.dtype), (left, size - window - left))
        spectrum = torch.fft.rfft(frames * kept)
        return spectrum.abs().transpose(1, 2).unsqueeze(1)

    layers = [
        (nn.Conv2d, (1, width, (3, 9)), {"padding": (1, 4)}),
        *[(nn.Conv2d, (width, width, (3, 9)), {"stride": (1, 2), "padding": (1, 4)})] * 3,
        (nn.Conv2d, (width, width, (3, 3)), {"padding": (1, 1)}),
    ]
    last = (nn.Conv2d, (width, 1, (3, 3)), {"padding": (1, 1)})
    return PlainPart(layers, last, prepare=magnitudes)


def judged_twice(parts, y, y_hat, pools=()):
    """All discriminators on both, one after the other."""
    found = [[], [], [], []]
    for k, part in enumerate(parts):
        if pools and k > 0:
            y, y_hat = pools[k - 1](y), pools[k - 1](y_hat)
        for place, audio in ((0, y), (1, y_hat)):
            logits, maps = part(audio)
            found[place].append(logits)
            found[place + 2].append(maps)
    return tuple(found)


# ---- the networks ------------------------------------------------------------------------------

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


# ---- pairs -------------------------------------------------------------------------------------


class Narrow(OfScale):
    layers = ((4, 15, 1, 1), (8, 41, 2, 4), (8, 5, 1, 1))


def scales(**options):
    """HiFi-GAN's, with narrow parts: the first has a spectral norm."""
    with torch.device("meta"):
        family = hifigan.MultiScaleDiscriminator(**options)
    family.discriminators = nn.ModuleList(Narrow(first) for first in (True, False, False))
    return family


def periods_of_vits(**options):
    with torch.device("meta"):
        family = vits.MultiPeriodDiscriminator(**options)
    others = bigvgan.MultiPeriodDiscriminator(CONFIGURATION).discriminators
    family.discriminators = nn.ModuleList([Narrow(), *others])
    return family


FAMILIES = {
    "periods": lambda **options: bigvgan.MultiPeriodDiscriminator(CONFIGURATION, **options),
    "resolutions": lambda **options: bigvgan.MultiResolutionDiscriminator(CONFIGURATION, **options),
    "scales": scales,
    "vits": periods_of_vits,
}


def plainly(family, y, y_hat):
    return judged_twice(family.discriminators, y, y_hat, getattr(family, "meanpools", ()))


def weighed(judged, matches_real=True):
    """A loss that weighs every output in its own way."""
    logits = [*judged[0], *judged[1]]
    maps = [fmap for side in judged[2:] for of_part in side for fmap in of_part]
    if not matches_real:
        logits, maps = judged[1], [fmap for of_part in judged[3] for fmap in of_part]
    return sum((k + 1) * out.square().mean() for k, out in enumerate([*logits, *maps]))


def audio_pair(dtype=torch.float64, counts=(2, 2), length=97):
    draws = torch.Generator().manual_seed(3)
    return [
        torch.randn(n, 1, length, generator=draws, dtype=torch.float64).to(dtype) for n in counts
    ]


def built(name, dtype=torch.float64, **options):
    torch.manual_seed(0)
    return FAMILIES[name](**options).to(dtype)


def counted(family):
    """How often each part has run."""
    runs = [0] * len(family.discriminators)

    def count(k):
        def hook(module, inputs):
            runs[k] += 1

        return hook

    for k, part in enumerate(family.discriminators):
        part.register_forward_pre_hook(count(k))
    return runs


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("step", ["discriminator", "generator", "counts differ"])
@pytest.mark.parametrize("name", FAMILIES)
def test_pairs_have_the_values_and_gradients_of_two_forwards(name, step, dtype):
    found = []
    for judge in (lambda family, *audio: family(*audio), plainly):
        family = built(name, dtype)
        y, y_hat = audio_pair(dtype, (2, 3) if step == "counts differ" else (2, 2))
        y_hat.requires_grad_(step == "generator")
        judged = judge(family, y, y_hat)
        loss = weighed(judged, matches_real=name != "vits")
        wanted = [*family.parameters()] + ([y_hat] if step == "generator" else [])
        found.append([judged, *torch.autograd.grad(loss, wanted)])
    rounding = 20 * TOLERANCE[dtype]
    torch.testing.assert_close(*found, rtol=rounding, atol=rounding)


@pytest.mark.parametrize(
    ("name", "options", "of_generator", "runs"),
    [
        ("periods", {}, False, [1, 1]),
        ("periods", {}, True, [1, 1]),
        ("periods", {"detach_real": True}, False, [1, 1]),
        ("periods", {"detach_real": True}, True, [2, 2]),
        ("resolutions", {}, False, [1, 1, 1]),
        ("scales", {}, False, [2, 1, 1]),  # the first has a spectral norm
        ("scales", {}, True, [2, 1, 1]),
        ("vits", {}, False, [1, 1, 1]),
        ("vits", {}, True, [2, 2, 2]),
    ],
)
def test_forwards_of_a_pair(name, options, of_generator, runs):
    family = built(name, **options)
    found = counted(family)
    y, y_hat = audio_pair()
    family(y, y_hat.requires_grad_(of_generator))
    assert found == runs


def test_without_gradients_nothing_keeps_the_sides_apart():
    family = built("vits")
    runs = counted(family)
    y, y_hat = audio_pair()
    with torch.no_grad():
        family(y, y_hat.requires_grad_())
    assert runs == [1, 1, 1]


def test_a_spectral_norm_that_rests_is_no_reason_for_two_forwards():
    family = built("scales").eval()
    runs = counted(family)
    family(*audio_pair())
    assert runs == [1, 1, 1]


@pytest.mark.parametrize("counts", [(0, 2), (0, 0)], ids=str)
@pytest.mark.parametrize("name", ["periods", "scales", "vits"])
def test_a_side_without_audio_has_no_logits(name, counts):
    family = built(name)
    y, y_hat = audio_pair(counts=counts)
    torch.testing.assert_close(family.eval()(y, y_hat), plainly(family, y, y_hat))


def test_shapes_are_to_be_had_without_values():
    y, y_hat = audio_pair()
    family = built("periods")
    wanted = [tuple(t.shape) for t in family(y, y_hat)[0]]
    found = family.to("meta")(y.to("meta"), y_hat.to("meta"))[0]
    assert [tuple(t.shape) for t in found] == wanted


def test_power_iterations_move_as_often_as_published():
    ours, theirs = built("scales"), built("scales")
    y, y_hat = audio_pair()
    for _ in range(3):
        ours(y, y_hat)
        plainly(theirs, y, y_hat)
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value)


def test_frozen_weights_leave_real_audio_without_a_walk():
    family = built("periods").requires_grad_(False)
    y, y_hat = audio_pair()
    judged = family(y, y_hat.requires_grad_())
    assert not any(out.requires_grad for out in judged[0])
    assert all(out.requires_grad for out in judged[1])


@pytest.mark.parametrize("name", FAMILIES)
def test_detach_real_leaves_the_generator_its_gradient(name):
    found = []
    for options in ({}, {"detach_real": True}):
        family = built(name, **options)
        y, y_hat = audio_pair()
        judged = family(y, y_hat.requires_grad_())
        if options:
            assert not any(out.requires_grad for out in judged[0])
        y_d_gs, fmap_rs, fmap_gs = judged[1:]
        loss = hifigan.generator_loss(y_d_gs)[0] + hifigan.feature_loss(fmap_rs, fmap_gs)
        found.append(torch.autograd.grad(loss, y_hat)[0])
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)


def test_half_precision_of_a_generator_under_autocast():
    """y is float32, y_hat what an autocast convolution has left."""
    family = built("periods", torch.float32)
    y, y_hat = audio_pair(torch.float32)
    y_hat = y_hat.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        wanted = plainly(family, y, y_hat)
        runs = counted(family)
        found = family(y, y_hat)
    assert runs == [1, 1]
    torch.testing.assert_close(found, wanted, rtol=1e-2, atol=1e-2)
    assert found[0][0].dtype == wanted[0][0].dtype == torch.bfloat16


@pytest.mark.parametrize("lengths", [(97, 61), (96, 97)], ids=["other length", "one sample more"])
def test_audio_of_two_lengths_is_judged_apart(lengths):
    family = built("periods")
    y, y_hat = (audio_pair(length=length)[k] for k, length in enumerate(lengths))
    torch.testing.assert_close(family(y, y_hat), plainly(family, y, y_hat))


def test_parts_of_ones_own_are_judged_apart():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.norm = nn.Conv1d(1, 3, 5), nn.BatchNorm1d(3)

        def forward(self, x):
            x = self.norm(self.layer(x))
            return x.flatten(1), [x]

    family = Pairs([Own().double()], detach_real=False)
    other = copy.deepcopy(family)
    y, y_hat = audio_pair()
    torch.testing.assert_close(family(y, y_hat), plainly(other, y, y_hat))


def test_copies_and_files_judge_alike(tmp_path):
    family = built("periods")
    y, y_hat = audio_pair()
    wanted = family(y, y_hat)
    torch.save(family, tmp_path / "d.pt")
    for other in (copy.deepcopy(family), torch.load(tmp_path / "d.pt", weights_only=False)):
        torch.testing.assert_close(other(y, y_hat), wanted)


def test_pairs_compile(fresh_compiler):
    family = built("periods", torch.float32)
    y, y_hat = audio_pair(torch.float32)
    compiled = torch.compile(family, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(y, y_hat), family(y, y_hat))


# ---- a training --------------------------------------------------------------------------------


def steps_with(judge, discriminator_loss, generator_loss, feature_loss):
    """HiFi-GAN's trainer: the discriminators, then the generator through them."""

    def step(generator, critic, of_generator, of_critic, noise, real):
        fake = generator(noise)
        of_critic.zero_grad()
        y_d_rs, y_d_gs, _, _ = judge(critic, real, fake.detach())
        discriminator_loss(y_d_rs, y_d_gs).backward()
        of_critic.step()
        of_generator.zero_grad()
        _, y_d_gs, fmap_rs, fmap_gs = judge(critic, real, fake)
        loss = generator_loss(y_d_gs) + feature_loss(fmap_rs, fmap_gs)
        (loss + 45 * (fake - real).abs().mean()).backward()
        of_generator.step()

    return step


def plain_feature_loss(reals, fakes):
    pairs = [(r, f) for rs, fs in zip(reals, fakes) for r, f in zip(rs, fs)]
    return 2 * sum((r - f).abs().mean() for r, f in pairs)


@pytest.mark.parametrize("options", [{}, {"detach_real": True}], ids=str)
@pytest.mark.parametrize("name", ["periods", "scales"])
def test_fifty_steps_agree(name, options):
    ours = steps_with(
        lambda critic, *audio: critic(*audio),
        lambda reals, fakes: hifigan.discriminator_loss(reals, fakes)[0],
        lambda fakes: hifigan.generator_loss(fakes)[0],
        hifigan.feature_loss,
    )
    plain = steps_with(
        plainly,
        lambda reals, fakes: (
            sum(((1 - r) ** 2).mean() for r in reals) + sum((f**2).mean() for f in fakes)
        ),
        lambda fakes: sum(((1 - f) ** 2).mean() for f in fakes),
        plain_feature_loss,
    )

    def batch(draws):
        return tuple(torch.randn(2, 2, 1, 64, generator=draws, dtype=torch.float64).unbind())

    torch.manual_seed(0)
    networks = waveform_generator(), built(name, torch.float32, **options)
    assert_training_agrees(ours, plain, networks, batch, rtol=1e-6, atol=1e-8)


# ---- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda f, y: f([y], y), TypeError, "y: expected"),
        (lambda f, y: f(y, y[0]), ValueError, r"y_hat: expected audio \[B, 1, T\], got"),
        (lambda f, y: f(y, y.long()), TypeError, "y_hat: expected"),
        (
            lambda f, y: bigvgan.DiscriminatorR(CONFIGURATION, (32, 8)),
            ValueError,
            r"resolution: expected the size .* got \(32, 8\)",
        ),
        (
            lambda f, y: bigvgan.MultiResolutionDiscriminator(
                SimpleNamespace(**{**vars(CONFIGURATION), "resolutions": [(32, 8, 16)]})
            ),
            ValueError,
            "cfg.resolutions: expected three, got 1",
        ),
    ],
)
def test_bad_input_is_explained(call, error, message):
    with pytest.raises(error, match=message):
        call(built("periods"), audio_pair()[0])


def test_the_first_configuration_for_resolutions_counts():
    own = SimpleNamespace(
        **{**vars(CONFIGURATION), "mrd_use_spectral_norm": True, "mrd_channel_mult": 0.125}
    )
    part = bigvgan.DiscriminatorR(own, (32, 8, 16))
    assert hasattr(part.conv_post, "weight_orig")
    assert part.conv_post.in_channels == 4


def test_a_backend_changes_nothing():
    y, y_hat = audio_pair()
    family = built("periods")
    with gf.use_backend("reference"):
        found = family(y, y_hat)
    torch.testing.assert_close(found, family(y, y_hat))
