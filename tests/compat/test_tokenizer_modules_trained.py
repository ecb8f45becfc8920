"""Fifty steps of a tokenizer and its critic, by the loss modules and by their formulas."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import tokenizer_codebases as codebases
import torch
from drop_in_cases import assert_training_agrees
from tokenizer_cases import module_of, networks

from ganloss_fast.compat import latent_diffusion, llamagen, seed_voken, taming

START = 10  # the step from which on the discriminators count


def of_taming(loss, latents, x, y, *turn):
    return loss(latents.square(), x, y, *turn)[0]


def of_latent_diffusion(loss, latents, x, y, *turn):
    return loss(x, y, codebases.Posterior(latents), *turn)[0]


def of_llamagen(loss, latents, x, y, *turn):
    codebook = latents.square().mean(), latents.mean(), latents.abs().mean(), 0.5
    return loss(codebook, x, y, *turn)


def of_seed_voken(loss, latents, x, y, *turn):
    parts = SimpleNamespace(
        commitment=latents.square().mean(),
        per_sample_entropy=latents.mean(),
        codebook_entropy=latents.std(),
    )
    return loss(latents.abs().mean(), parts, x, y, *turn)[0]


def plain_llamagen(lpips, judge, **options):
    return lambda *step: codebases.llamagen(lpips, judge, *step, start=START, **options)


# (the call of a turn, the module, the formulas), of the perceptual network and the critic.
TRAININGS = {
    "taming": (
        of_taming,
        lambda lpips, judge: module_of(
            taming.VQLPIPSWithDiscriminator, lpips, judge, {"weight": 0.8, "start": START}
        ),
        lambda lpips, judge: codebases.Taming(lpips, judge, START, weight=0.8),
    ),
    "latent-diffusion, VQ": (
        of_taming,
        lambda lpips, judge: module_of(
            latent_diffusion.VQLPIPSWithDiscriminator,
            lpips,
            judge,
            {"weight": 0.8, "start": START},
            pixel_loss="l2",
        ),
        lambda lpips, judge: codebases.Taming(lpips, judge, START, weight=0.8, pixels="l2"),
    ),
    "latent-diffusion, KL": (
        of_latent_diffusion,
        lambda lpips, judge: module_of(
            latent_diffusion.LPIPSWithDiscriminator,
            lpips,
            judge,
            {"weight": 0.5, "start": START},
            logvar_init=-0.4,
            kl_weight=1e-3,
        ).double(),
        lambda lpips, judge: codebases.LatentDiffusion(
            lpips, judge, START, -0.4, 1e-3, weight=0.5
        ).double(),
    ),
    "llamagen": (
        of_llamagen,
        lambda lpips, judge: llamagen.VQLoss(
            START, disc_weight=0.5, perceptual_loss=lpips, discriminator=judge
        ),
        lambda lpips, judge: plain_llamagen(lpips, judge, weight=0.5),
    ),
    "llamagen, adaptive": (
        of_llamagen,
        lambda lpips, judge: llamagen.VQLoss(
            START,
            "non-saturating",
            disc_weight=0.5,
            disc_adaptive_weight=True,
            gen_adv_loss="non-saturating",
            reconstruction_loss="l1",
            perceptual_loss=lpips,
            discriminator=judge,
        ),
        lambda lpips, judge: plain_llamagen(
            lpips,
            judge,
            weight=0.5,
            adaptive=True,
            d_loss="non-saturating",
            g_loss="non-saturating",
            pixels="l1",
        ),
    ),
    "seed-voken": (
        of_seed_voken,
        lambda lpips, judge: module_of(
            seed_voken.VQLPIPSWithDiscriminator,
            lpips,
            judge,
            {"weight": 0.8, "start": START, "disc_loss": "non_saturate"},
            lecam_loss_weight=0.05,
            codebook_enlarge_steps=30,
        ),
        lambda lpips, judge: codebases.SeedVoken(
            lpips, judge, START, weight=0.8, disc_loss="non_saturate", lecam_weight=0.05, steps=30
        ),
    ),
}


def step_of(call, make_loss, freezes):
    """The tokenizer's turn, then the critic's; the module is made once, for what it keeps."""
    made, count = [], iter(range(10**6))

    def step(model, judge, of_model, of_critic, x):
        if not made:
            made.append(make_loss(judge))
        loss, number = made[0], next(count)
        judge.requires_grad_(not freezes)
        y, latents = model(x)
        of_model.zero_grad()
        call(loss, latents, x, y, 0, number, model.last.weight).backward()
        of_model.step()
        judge.requires_grad_(True)
        of_critic.zero_grad()
        call(loss, latents.detach(), x, y.detach(), 1, number, None).backward()
        of_critic.step()

    return step


@pytest.mark.parametrize("freezes", [True, False], ids=["frozen", "learning"])
@pytest.mark.parametrize("name", TRAININGS)
def test_fifty_steps_agree(name, freezes):
    call, ours, plain = TRAININGS[name]
    model, lpips, critic = networks()
    assert_training_agrees(
        step_of(call, lambda judge: ours(lpips, judge), freezes),
        step_of(call, lambda judge: plain(lpips, judge), freezes),
        (model, critic),
        lambda draws: (torch.rand(2, 3, 8, 8, generator=draws),),
    )
