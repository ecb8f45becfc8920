"""HiFi-GAN's losses, and BigVGAN's, which are the same."""

from __future__ import annotations

import inspect

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

import ganloss_fast as gf
from ganloss_fast.compat import bigvgan, hifigan

LOGITS = [(2, 9), (2, 5), (2, 1, 3, 2)]
MAPS = [[(2, 3, 7), (2, 1, 7)], [(2, 5), (2, 4, 3, 2), (2, 1)]]


# ---- as published, written out -----------------------------------------------------------------


def discriminator_loss(reals, fakes):
    losses = [(((1 - r) ** 2).mean(), (f**2).mean()) for r, f in zip(reals, fakes)]
    return (
        sum(r + f for r, f in losses),
        [r.item() for r, _ in losses],
        [f.item() for _, f in losses],
    )


def generator_loss(fakes):
    losses = [((1 - f) ** 2).mean() for f in fakes]
    return sum(losses), losses


def feature_loss(reals, fakes):
    pairs = [(r, f) for rs, fs in zip(reals, fakes) for r, f in zip(rs, fs)]
    return 2 * sum((r - f).abs().mean() for r, f in pairs)


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_losses_and_their_parts_are_those_of_the_formulas(dtype, backend):
    with gf.use_backend(backend):
        reals, fakes = draw(LOGITS, LOGITS, dtype=dtype)
        assert_same(hifigan.discriminator_loss, discriminator_loss, reals, fakes)
        assert_same(hifigan.generator_loss, generator_loss, fakes)
        reals, fakes = draw(MAPS, MAPS, dtype=dtype)
        assert_same(hifigan.feature_loss, feature_loss, reals, fakes)


def test_parts_may_stay_on_the_device():
    reals, fakes = draw(LOGITS, LOGITS)
    loss, r_losses, g_losses = hifigan.discriminator_loss(reals, fakes, floats=False)
    wanted, r_wanted, g_wanted = discriminator_loss(reals, fakes)
    torch.testing.assert_close(loss, wanted)
    for tensors, numbers in ((r_losses, r_wanted), (g_losses, g_wanted)):
        assert all(t.shape == () and not t.requires_grad for t in tensors)
        assert [t.item() for t in tensors] == pytest.approx(numbers)


def test_the_discarded_gradient_of_real_maps_is_left_out_on_request():
    reals, fakes = draw(MAPS, MAPS)
    hifigan.feature_loss(reals, fakes, detach_real=True).backward()
    assert all(t.grad is None for maps in reals for t in maps)
    of_fakes = [t.grad for maps in fakes for t in maps]
    flat = [t for maps in fakes for t in maps]
    for a, b in zip(of_fakes, torch.autograd.grad(feature_loss(reals, fakes), flat)):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_gives_float32(dtype):
    reals, fakes = draw(LOGITS, LOGITS, dtype=dtype)
    loss, r_losses, _ = hifigan.discriminator_loss(reals, fakes)
    assert loss.dtype == torch.float32
    assert r_losses[0] == pytest.approx(((1 - reals[0].float()) ** 2).mean().item(), rel=1e-5)


def test_signatures_are_the_published_ones():
    for function, names in (
        (hifigan.discriminator_loss, ["disc_real_outputs", "disc_generated_outputs"]),
        (hifigan.generator_loss, ["disc_outputs"]),
        (hifigan.feature_loss, ["fmap_r", "fmap_g"]),
    ):
        parameters = inspect.signature(function).parameters.values()
        assert [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD] == names


def test_bigvgan_has_the_same_three():
    for name in ("discriminator_loss", "generator_loss", "feature_loss"):
        assert getattr(bigvgan, name) is getattr(hifigan, name)


# ---- a training --------------------------------------------------------------------------------


def steps_of(losses, **options):
    """HiFi-GAN's own order: discriminators first, then the generator through them."""

    def step(generator, critic, of_generator, of_critic, noise, real):
        fake = generator(noise)
        of_critic.zero_grad()
        loss, *_ = losses.discriminator_loss(critic(real)[0], critic(fake.detach())[0])
        loss.backward()
        of_critic.step()
        of_generator.zero_grad()
        _, real_maps = critic(real)
        logits, maps = critic(fake)
        adversarial, parts = losses.generator_loss(logits)
        assert len(parts) == len(logits)
        features = losses.feature_loss(real_maps, maps, **options)
        (adversarial + features + 45 * (fake - real).abs().mean()).backward()
        of_generator.step()

    return step


class Plain:
    discriminator_loss = staticmethod(discriminator_loss)
    generator_loss = staticmethod(generator_loss)
    feature_loss = staticmethod(feature_loss)


@pytest.mark.parametrize("options", [{}, {"detach_real": True}], ids=str)
def test_fifty_steps_agree(options):
    torch.manual_seed(0)
    networks = waveform_generator(), maps_and_logits()
    assert_training_agrees(steps_of(hifigan, **options), steps_of(Plain), networks, waveforms)


# ---- torch.compile, bad input ------------------------------------------------------------------


def test_tensors_compile_in_one_graph_and_numbers_break_it(fresh_compiler):
    reals, fakes = draw(LOGITS, LOGITS, dtype=torch.float32)
    reals, fakes = [t.detach() for t in reals], [t.detach() for t in fakes]

    def tensors(reals, fakes):
        return hifigan.discriminator_loss(reals, fakes, floats=False)

    whole = torch.compile(tensors, fullgraph=True, backend="aot_eager")(reals, fakes)
    torch.testing.assert_close(whole, tensors(reals, fakes))
    broken = torch.compile(hifigan.discriminator_loss, backend="eager")(reals, fakes)
    assert isinstance(broken[1][0], float)


def test_a_capture_names_the_switch(monkeypatch):
    from ganloss_fast.compat import _lists

    class OnTheGpu(torch.Tensor):
        is_cuda = True

    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    monkeypatch.setattr(torch, "stack", lambda t: t[0].as_subclass(OnTheGpu))
    with pytest.raises(RuntimeError, match="Pass floats=False"):
        _lists.as_numbers(torch.zeros(2), torch.zeros(2))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda f, m: hifigan.discriminator_loss(f, f[:2]),
            ValueError,
            "disc_real_outputs and disc_generated_outputs must hold the same number.*3 and 2",
        ),
        (
            lambda f, m: hifigan.discriminator_loss([], []),
            ValueError,
            "disc_real_outputs: expected",
        ),
        (
            lambda f, m: hifigan.discriminator_loss(m, m),
            ValueError,
            r"disc_real_outputs: expected a flat sequence of tensors, but entry 0 is a list of 2",
        ),
        (lambda f, m: hifigan.generator_loss(m), ValueError, "disc_outputs: expected a flat"),
        (lambda f, m: hifigan.generator_loss(f[0]), TypeError, r"For a single .* pass \[logits\]"),
        (
            lambda f, m: hifigan.discriminator_loss(f, f[0]),
            TypeError,
            "disc_generated_outputs: expected a list with the logits of each discriminator",
        ),
        (
            lambda f, m: hifigan.feature_loss(f, f),
            TypeError,
            r"fmap_r\[0\]: expected the feature maps of one discriminator in a list",
        ),
        (lambda f, m: hifigan.feature_loss(f[0], m), TypeError, "fmap_r: expected a list"),
        (lambda f, m: hifigan.feature_loss(m, m[:1]), ValueError, "same number of maps"),
        (lambda f, m: hifigan.feature_loss([m], [m]), ValueError, r"\[0\]: expected a flat"),
    ],
)
def test_wrong_lists_are_explained(call, error, message):
    with pytest.raises(error, match=message):
        call(*draw(LOGITS, MAPS))
