"""1d-tokenizer's losses beside their formulas in plain PyTorch."""

from __future__ import annotations

import pytest
import tokenizer_codebases as codebases
import torch
import torch.nn.functional as F
from drop_in_cases import assert_training_agrees
from tokenizer_cases import images, networks

from ganloss_fast.compat import taming, titok


def test_the_hinge_loss_is_tamings():
    assert titok.hinge_d_loss is taming.hinge_d_loss


class Config(dict):
    __getattr__ = dict.__getitem__


def config_of(quantize_mode="vq", **losses):
    values = {
        "reconstruction_loss": "l2",
        "reconstruction_weight": 1.0,
        "quantizer_weight": 0.7,
        "perceptual_weight": 1.1,
        "discriminator_start": 2,
        "discriminator_factor": 0.9,
        "discriminator_weight": 0.1,
        "lecam_regularization_weight": 0.001,
    }
    model = Config(vq_model=Config(quantize_mode=quantize_mode))
    return Config(losses=Config(values | losses), model=model)


class Plain:
    def __init__(self, config, lpips, critic):
        self.c, self.lpips, self.critic = config.losses, lpips, critic
        self.averages = [torch.zeros(1), torch.zeros(1)]
        self.mode = config.model.vq_model.quantize_mode

    def factor(self, step):
        return self.c.discriminator_factor if step >= self.c.discriminator_start else 0

    def generator(self, x, y, results, step):
        c, factor = self.c, self.factor(step)
        distance = F.l1_loss if c.reconstruction_loss == "l1" else F.mse_loss
        rec = c.reconstruction_weight * distance(y, x)
        p = c.perceptual_weight * self.lpips(x, y).mean()
        g = -self.critic(y).mean() if factor > 0 and c.discriminator_weight > 0 else torch.zeros(())
        weighed = c.discriminator_weight * factor * g
        if self.mode == "vae":
            rec = rec / torch.tensor(c.get("logvar_init", 0.0)).exp()
            kl = c.get("kl_weight", 1e-6) * results.kl().sum() / len(x)
            latents, of_latents = kl, {"kl_loss": kl}
        else:
            latents = c.quantizer_weight * results["quantizer_loss"]
            of_latents = {**results, "quantizer_loss": latents}
        return rec + p + latents + weighed, {
            "reconstruction_loss": rec,
            "perceptual_loss": p,
            "weighted_gan_loss": weighed,
            "gan_loss": g,
            "discriminator_factor": torch.tensor(factor),
            "d_weight": c.discriminator_weight,
            **of_latents,
        }

    def discriminator(self, x, y, step):
        real, fake = self.critic(x.detach()), self.critic(y.detach())
        loss, lecam = self.factor(step) * codebases.hinge_d_loss(real, fake), torch.zeros(())
        weight = self.c.lecam_regularization_weight
        if weight > 0:
            of_real, of_fake = self.averages
            lecam = F.relu(real.mean() - of_fake).square().mean()
            lecam = weight * (lecam + F.relu(of_real - fake.mean()).square().mean())
            decay = self.c.get("lecam_ema_decay", 0.999)
            self.averages = [
                average * decay + mean.detach() * (1 - decay)
                for average, mean in zip(self.averages, (real.mean(), fake.mean()))
            ]
        return loss + lecam, {
            "logits_real": real.mean(),
            "logits_fake": fake.mean(),
            "lecam_loss": lecam,
        }


def assert_log(log, wanted, total, name):
    assert log.keys() == {*wanted, name}
    torch.testing.assert_close(log[name], total.detach())
    for key, value in wanted.items():
        torch.testing.assert_close(torch.as_tensor(log[key]), torch.as_tensor(value), msg=key)
        assert not (isinstance(log[key], torch.Tensor) and log[key].requires_grad)


CASES = [
    (titok.ReconstructionLoss_Stage2, {}),
    (titok.ReconstructionLoss_Stage2, {"reconstruction_loss": "l1", "discriminator_start": 9}),
    (titok.ReconstructionLoss_Single_Stage, {"lecam_regularization_weight": 0.0}),
    (titok.ReconstructionLoss_Single_Stage, {"quantize_mode": "vae", "logvar_init": 0.4}),
]


@pytest.mark.parametrize(("cls", "options"), CASES, ids=lambda value: str(value)[-40:])
def test_both_sides_learn_what_they_would(cls, options):
    model, lpips, critic = networks(torch.float32)
    config = config_of(**options)
    ours = cls(config, perceptual_loss=lpips, discriminator=critic)
    plain = Plain(config, lpips, critic)
    x = images(torch.float32)
    y, latents = model(x)
    results = {
        "quantizer_loss": latents.square().mean(),
        "commitment_loss": latents.mean(),
        "codebook_loss": latents.std(),
    }
    if options.get("quantize_mode") == "vae":
        results = codebases.Posterior(latents)
    for step in (4, 5):
        total, log = ours(x, y, results, step)
        wanted, parts = plain.generator(x, y, results, step)
        assert_log(log, parts, total, "total_loss")
        learning = list(model.parameters())
        gradients = [torch.autograd.grad(t, learning, retain_graph=True) for t in (total, wanted)]
        torch.testing.assert_close(total, wanted)
        torch.testing.assert_close(*gradients)
        was_asked = step >= config.losses.discriminator_start
        assert all(p.requires_grad != was_asked for p in critic.parameters())
        total, log = ours(x, y, results, step, mode="discriminator")
        wanted, parts = plain.discriminator(x, y, step)
        assert_log(log, parts, total, "discriminator_loss")
        learning = list(critic.parameters())
        gradients = [torch.autograd.grad(t, learning, retain_graph=True) for t in (total, wanted)]
        torch.testing.assert_close(total, wanted)
        torch.testing.assert_close(*gradients)
    if config.losses.lecam_regularization_weight > 0:
        averages = [ours.ema_real_logits_mean, ours.ema_fake_logits_mean]
        torch.testing.assert_close(averages, plain.averages)


def test_autocast_is_left_out():
    model, lpips, critic = networks(torch.float32)
    loss = titok.ReconstructionLoss_Stage2(config_of(), perceptual_loss=lpips, discriminator=critic)
    x = images(torch.float32)
    y = model(x)[0].detach()
    wanted, _ = loss(x, y, {}, 5, mode="discriminator")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, _ = loss(x, y, {}, 5, mode="discriminator")
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_wrong_arguments_are_explained():
    _, lpips, critic = networks(torch.float32)
    of = {"perceptual_loss": lpips, "discriminator": critic}
    with pytest.raises(ValueError, match="reconstruction_loss: expected one of l1, l2"):
        titok.ReconstructionLoss_Stage2(config_of(reconstruction_loss="l3"), **of)
    with pytest.raises(TypeError, match="discriminator: expected the network"):
        titok.ReconstructionLoss_Stage2(config_of(), perceptual_loss=lpips)
    with pytest.raises(ValueError, match="quantize_mode: expected one of vq, vae"):
        titok.ReconstructionLoss_Single_Stage(config_of("fsq"), **of)
    loss = titok.ReconstructionLoss_Stage2(config_of(), **of)
    x = images(torch.float32)
    with pytest.raises(ValueError, match="mode: expected one of generator, discriminator"):
        loss(x, x, {}, 0, mode="both")


def test_fifty_steps_agree():
    """In float32, to which the losses convert their images."""
    _, lpips, _ = networks(torch.float32)

    def step_with(make):
        made = {}

        def step(model, judge, of_model, of_critic, x):
            x = x.float()
            if not made:
                model.float(), judge.float()
                made["generator"], made["discriminator"] = make(judge)
            y, latents = model(x)
            of_model.zero_grad()
            judge.requires_grad_(False)
            names = ("quantizer_loss", "commitment_loss", "codebook_loss")
            results = dict.fromkeys(names, latents.square().mean())
            made["generator"](x, y, results, 5)[0].backward()
            of_model.step()
            judge.requires_grad_(True)
            of_critic.zero_grad()
            made["discriminator"](x, y, 5)[0].backward()
            of_critic.step()

        return step

    def ours(judge):
        loss = titok.ReconstructionLoss_Stage2(
            config_of(), perceptual_loss=lpips, discriminator=judge
        )
        return loss, lambda x, y, step: loss(x, y, {}, step, mode="discriminator")

    def plain(judge):
        loss = Plain(config_of(), lpips, judge)
        return loss.generator, loss.discriminator

    model, _, critic = networks(torch.float32)
    assert_training_agrees(
        step_with(ours),
        step_with(plain),
        (model, critic),
        lambda draws: (torch.rand(2, 3, 8, 8, generator=draws),),
        rtol=1e-4,
        atol=1e-5,
    )
