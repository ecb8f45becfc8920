"""Families of audio discriminators: real and generated audio by one forward of each part, with the
numbers of two."""

from __future__ import annotations

import copy

import pytest
import torch
from audio_codebases import CONFIGURATION
from drop_in_cases import TOLERANCE, assert_training_agrees, waveform_generator
from torch import nn

from ganloss_fast.compat import bigvgan, hifigan, vits
from ganloss_fast.compat._audio_discriminators import PairedDiscriminators, ScaleDiscriminator


class CentredByTheBatch(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


class Narrow(ScaleDiscriminator):
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
    """As published: each discriminator runs on real audio, then on generated."""
    pools = getattr(family, "meanpools", ())
    found = [[], [], [], []]
    for k, part in enumerate(family.discriminators):
        if pools and k > 0:
            y, y_hat = pools[k - 1](y), pools[k - 1](y_hat)
        for place, audio in ((0, y), (1, y_hat)):
            logits, maps = part(audio)
            found[place].append(logits)
            found[place + 2].append(maps)
    return tuple(found)


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
    rounding = TOLERANCE[dtype]
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


@pytest.mark.parametrize(
    "norm", [lambda: nn.BatchNorm1d(3), CentredByTheBatch], ids=["known", "own"]
)
def test_parts_of_ones_own_are_judged_apart(norm):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.norm = nn.Conv1d(1, 3, 5), norm()

        def forward(self, x):
            x = self.norm(self.layer(x))
            return x.flatten(1), [x]

    family = PairedDiscriminators([Own().double()], detach_real=False)
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
    assert_training_agrees(ours, plain, networks, batch)


# ---- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda f, y: f([y], y), TypeError, "y: expected"),
        (lambda f, y: f(y, y[0]), ValueError, r"y_hat: expected audio \[B, 1, T\], got"),
        (lambda f, y: f(y, y.long()), TypeError, "y_hat: expected"),
    ],
)
def test_bad_input_is_explained(call, error, message):
    with pytest.raises(error, match=message):
        call(built("periods"), audio_pair()[0])
