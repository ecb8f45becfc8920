"""The loss modules of LlamaGen and SEED-Voken beside their formulas in plain PyTorch."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import tokenizer_codebases as codebases
import torch
from drop_in_cases import DTYPES
from tokenizer_cases import OPTIONS, assert_losses_agree, images, networks

from ganloss_fast.compat import llamagen, seed_voken

LLAMAGEN_CASES = [
    {},
    {"adaptive": True, "weight": 0.5},
    {"adaptive": True, "d_loss": "vanilla", "g_loss": "non-saturating", "pixels": "l1"},
    {"d_loss": "non-saturating", "rec_weight": 0.5, "perceptual_weight": 0.3},
    {"start": 10, "perceptual_weight": 0.0},
]
LLAMAGEN_NAMES = {
    "weight": "disc_weight",
    "adaptive": "disc_adaptive_weight",
    "d_loss": "disc_loss",
    "g_loss": "gen_adv_loss",
    "pixels": "reconstruction_loss",
    "rec_weight": "reconstruction_weight",
    "start": "disc_start",
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "learning"])
@pytest.mark.parametrize("case", LLAMAGEN_CASES, ids=str)
def test_llamagen_learns_what_it_would(case, frozen, dtype):
    model, lpips, critic = networks(dtype)
    critic.requires_grad_(not frozen)
    x = images(dtype)
    y, latents = model(x)
    codebook = latents.mean(), latents.square().mean(), latents.abs().mean(), 0.5
    named = {LLAMAGEN_NAMES.get(name, name): value for name, value in case.items()}
    named.setdefault("disc_start", 0)
    ours = llamagen.VQLoss(**named, perceptual_loss=lpips, discriminator=critic)
    for idx in (0, 1):
        step = codebook, x, y, idx, 5, model.last.weight
        plain = partial(codebases.llamagen, lpips, critic, *step, **case)
        learning = list(model.parameters()) + ([] if frozen else list(critic.parameters()))
        if idx == 1 and frozen:
            continue
        pairs = [lambda loss=loss: (loss(), {}) for loss in (partial(ours, *step), plain)]
        assert_losses_agree(*pairs, learning, dtype)


def test_llamagen_logs_lines():
    model, lpips, critic = networks()
    x = images()
    y, _ = model(x)
    lines = []

    class Logger:
        info = staticmethod(lines.append)

    loss = llamagen.VQLoss(0, disc_weight=0.5, perceptual_loss=lpips, discriminator=critic)
    codebook = torch.tensor(0.25), torch.tensor(0.125), 0.0, 0.75
    for idx in (0, 1):
        for step in (100, 101):
            loss(codebook, x, y, idx, step, model.last.weight, Logger())
    of_generator, of_discriminator = lines
    adversarial = -0.5 * critic(y).mean()
    assert of_generator.startswith(f"(Generator) rec_loss: {(x - y).square().mean():.4f}, perc")
    assert "vq_loss: 0.2500, commit_loss: 0.1250, entropy_loss: 0.0000" in of_generator
    assert f"generator_adv_loss: {adversarial:.4f}, disc_adaptive_weight: 1.0000" in of_generator
    assert of_discriminator.endswith(f"logits_fake: {critic(y).mean():.4f}")


def test_llamagens_reversed_losses_are_asked_for_by_name():
    model, lpips, critic = networks()
    x = images()
    y, _ = model(x)
    options = {"disc_loss": "non-saturating", "gen_adv_loss": "non-saturating"}
    loss = llamagen.VQLoss(
        0, perceptual_loss=lpips, discriminator=critic, reversed_as_published=True, **options
    )
    value = loss((0.0, 0.0, 0.0), x, y, 1, 0)
    logits = critic(x), critic(y)
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    wanted = 0.5 * (
        bce(torch.ones_like(logits[0]), logits[0]) + bce(torch.zeros_like(logits[1]), logits[1])
    )
    torch.testing.assert_close(value, wanted)


SEED_CASES = [
    {},
    {"lecam_weight": 0.05, "disc_loss": "non_saturate", "factor": 0.5, "weight": 0.8},
    {"gen_weight": 0.1, "ratio": 0, "codebook_weight": 0.1, "lecam_weight": 0.01},
    {"start": 10, "lecam_weight": 0.01},
]
SEED_NAMES = {
    **OPTIONS,
    "ratio": "codebook_enlarge_ratio",
    "steps": "codebook_enlarge_steps",
    "gen_weight": "gen_loss_weight",
    "lecam_weight": "lecam_loss_weight",
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "learning"])
@pytest.mark.parametrize("case", SEED_CASES, ids=str)
def test_seed_voken_learns_what_it_would(case, frozen, dtype):
    model, lpips, critic = networks(dtype)
    critic.requires_grad_(not frozen)
    x = images(dtype)
    y, latents = model(x)
    named = {SEED_NAMES.get(name, name): value for name, value in case.items()}
    named.setdefault("disc_start", 0)
    ours = seed_voken.VQLPIPSWithDiscriminator(**named, perceptual_loss=lpips, discriminator=critic)
    plain = codebases.SeedVoken(lpips, critic, **case)
    parts = SimpleNamespace(
        commitment=latents.square().mean(),
        per_sample_entropy=latents.mean(),
        codebook_entropy=latents.std(),
    )
    step = latents.abs().mean(), parts, x, y, 0, 5, model.last.weight
    learning = list(model.parameters()) + ([] if frozen else list(critic.parameters()))
    assert_losses_agree(partial(ours, *step), partial(plain, *step), learning, dtype)
    if not frozen:
        step = latents.mean(), parts, x, y, 1, 5
        assert_losses_agree(partial(ours, *step), partial(plain, *step), learning, dtype)


def test_seed_voken_validates_with_three_values():
    model, lpips, critic = networks()
    x = images()
    y, latents = model(x)
    loss = seed_voken.VQLPIPSWithDiscriminator(0, perceptual_loss=lpips, discriminator=critic)
    parts = SimpleNamespace(commitment=latents.mean())
    with torch.no_grad():
        _, log = loss.eval()(latents.mean(), parts, x, y, 0, 5, model.last.weight, split="val")
    assert list(log) == ["val/reconstruct_loss", "val/perceptual_loss", "val/g_loss"]
    torch.testing.assert_close(log["val/g_loss"], codebases.non_saturating_g(critic(y)).detach())
