"""The loss modules of tokenizer codebases in plain PyTorch, and networks to try them on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def hinge_d_loss(real, fake):
    return 0.5 * (F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean())


def vanilla_d_loss(real, fake):
    return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())


def adaptive_weight(nll, g, last):
    of_nll = torch.autograd.grad(nll, last, retain_graph=True)[0]
    of_g = torch.autograd.grad(g, last, retain_graph=True)[0]
    return torch.clamp(of_nll.norm() / (of_g.norm() + 1e-4), 0.0, 1e4).detach()


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x):
        latents = self.encoder(x)
        return self.last(latents.tanh()), latents


class Lpips(nn.Module):
    """Fixed, and like LPIPS one distance for each image: [B, 1, 1, 1]."""

    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(3, 5, 3).requires_grad_(False)

    def forward(self, one, other):
        apart = (self.features(one).tanh() - self.features(other).tanh()).square()
        return apart.mean(dim=(1, 2, 3), keepdim=True)


def critic(channels=3):
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.SiLU(), nn.Conv2d(4, 1, 3))


class Posterior:
    def __init__(self, latents):
        self.latents = latents

    def kl(self):
        return self.latents.square().sum(dim=(1, 2, 3))


class Taming:
    """VQLPIPSWithDiscriminator of taming-transformers and of latent-diffusion."""

    def __init__(
        self,
        lpips,
        critic,
        start=0,
        codebook_weight=1.0,
        factor=1.0,
        weight=1.0,
        perceptual_weight=1.0,
        disc_loss="hinge",
        pixels="l1",
    ):
        self.lpips, self.critic, self.start = lpips, critic, start
        self.codebook_weight, self.factor, self.weight = codebook_weight, factor, weight
        self.perceptual_weight, self.pixels = perceptual_weight, pixels
        self.disc_loss = {"hinge": hinge_d_loss, "vanilla": vanilla_d_loss}[disc_loss]

    def __call__(self, codebook, x, y, idx, step, last_layer=None, cond=None, split="train"):
        rec = (x - y).abs() if self.pixels == "l1" else (x - y) ** 2
        p = torch.zeros(1, dtype=x.dtype)
        if self.perceptual_weight > 0:
            p = self.lpips(x, y)
            rec = rec + self.perceptual_weight * p
        nll = rec.mean()
        beside = [] if cond is None else [cond]
        factor = self.factor if step >= self.start else 0.0
        if idx == 1:
            real = self.critic(torch.cat([x.detach(), *beside], dim=1))
            fake = self.critic(torch.cat([y.detach(), *beside], dim=1))
            loss = factor * self.disc_loss(real, fake)
            log = {"disc_loss": loss, "logits_real": real.mean(), "logits_fake": fake.mean()}
            return loss, {f"{split}/{k}": v.detach() for k, v in log.items()}
        g = -self.critic(torch.cat([y, *beside], dim=1)).mean()
        d_weight = adaptive_weight(nll, g, last_layer) * self.weight
        loss = nll + d_weight * factor * g + self.codebook_weight * codebook.mean()
        log = {
            "total_loss": loss,
            "quant_loss": codebook.mean(),
            "nll_loss": nll,
            "rec_loss": rec.mean(),
            "p_loss": p.mean(),
            "d_weight": d_weight,
            "disc_factor": torch.tensor(factor),
            "g_loss": g,
        }
        return loss, {f"{split}/{k}": v.detach() for k, v in log.items()}


class LatentDiffusion(nn.Module):
    """LPIPSWithDiscriminator."""

    def __init__(
        self,
        lpips,
        critic,
        start=0,
        logvar=0.0,
        kl_weight=1.0,
        factor=1.0,
        weight=1.0,
        perceptual_weight=1.0,
        disc_loss="hinge",
    ):
        super().__init__()
        self.logvar = nn.Parameter(torch.ones(()) * logvar)
        self.lpips, self.critic, self.start, self.kl_weight = lpips, critic, start, kl_weight
        self.factor, self.weight, self.perceptual_weight = factor, weight, perceptual_weight
        self.disc_loss = {"hinge": hinge_d_loss, "vanilla": vanilla_d_loss}[disc_loss]

    def forward(self, x, y, posteriors, idx, step, last_layer=None, split="train", weights=None):
        factor = self.factor if step >= self.start else 0.0
        if idx == 1:
            real, fake = self.critic(x.detach()), self.critic(y.detach())
            loss = factor * self.disc_loss(real, fake)
            log = {"disc_loss": loss, "logits_real": real.mean(), "logits_fake": fake.mean()}
            return loss, {f"{split}/{k}": v.detach() for k, v in log.items()}
        rec = (x - y).abs()
        if self.perceptual_weight > 0:
            rec = rec + self.perceptual_weight * self.lpips(x, y)
        each = rec / self.logvar.exp() + self.logvar
        nll = each.sum() / each.shape[0]
        weighed = nll if weights is None else (weights * each).sum() / each.shape[0]
        kl = posteriors.kl().sum() / len(x)
        g = -self.critic(y).mean()
        d_weight = torch.zeros(())
        if self.factor > 0.0:
            d_weight = adaptive_weight(nll, g, last_layer) * self.weight
        loss = weighed + self.kl_weight * kl + d_weight * factor * g
        log = {
            "total_loss": loss,
            "logvar": self.logvar,
            "kl_loss": kl,
            "nll_loss": nll,
            "rec_loss": rec.mean(),
            "d_weight": d_weight,
            "disc_factor": torch.tensor(factor),
            "g_loss": g,
        }
        return loss, {f"{split}/{k}": v.detach() for k, v in log.items()}


def non_saturating_g(fake):
    return F.softplus(-fake.flatten(1).mean(1)).mean()


def non_saturating_d(real, fake):
    return F.softplus(-real.flatten(1).mean(1)).mean() + F.softplus(fake.flatten(1).mean(1)).mean()


def llamagen(
    lpips,
    critic,
    codebook,
    x,
    y,
    idx,
    step,
    last_layer,
    start=0,
    weight=1.0,
    adaptive=False,
    d_loss="hinge",
    g_loss="hinge",
    pixels="l2",
    rec_weight=1.0,
    perceptual_weight=1.0,
):
    """VQLoss, with the non-saturating losses that its names say."""
    weight = weight if step >= start else 0.0
    if idx == 1:
        pair = critic(x.detach()), critic(y.detach())
        return weight * (vanilla_d_loss if d_loss != "hinge" else hinge_d_loss)(*pair)
    rec = F.l1_loss(x, y) if pixels == "l1" else F.mse_loss(x, y)
    distances = rec_weight * rec + perceptual_weight * lpips(x, y).mean()
    fake = critic(y)
    g = -fake.mean() if g_loss == "hinge" else F.softplus(-fake).mean()
    ratio = adaptive_weight(distances, g, last_layer) if adaptive else 1
    return distances + ratio * weight * g + codebook[0] + codebook[1] + codebook[2]


class SeedVoken:
    """VQLPIPSWithDiscriminator of Open-MAGVIT2."""

    def __init__(
        self,
        lpips,
        critic,
        start=0,
        codebook_weight=1.0,
        factor=1.0,
        weight=1.0,
        commit_weight=0.25,
        ratio=3,
        steps=2000,
        disc_loss="hinge",
        gen_weight=None,
        lecam_weight=None,
    ):
        self.lpips, self.critic, self.start, self.factor, self.weight = (
            lpips,
            critic,
            start,
            factor,
            weight,
        )
        self.codebook_weight, self.commit_weight = codebook_weight, commit_weight
        self.ratio, self.steps, self.gen_weight, self.lecam_weight = (
            ratio,
            steps,
            gen_weight,
            lecam_weight,
        )
        losses = {
            "hinge": hinge_d_loss,
            "vanilla": vanilla_d_loss,
            "non_saturate": non_saturating_d,
        }
        self.disc_loss, self.real_ema, self.fake_ema = losses[disc_loss], 0.0, 0.0

    def __call__(self, codebook, parts, x, y, idx, step, last_layer=None):
        factor = self.factor if step >= self.start else 0.0
        zero = torch.zeros(())
        if idx == 1:
            real, fake = self.critic(x.detach()), self.critic(y.detach())
            lecam, adversarial = zero, self.disc_loss(real, fake)
            total = adversarial
            if self.lecam_weight is not None:
                self.real_ema = 0.999 * self.real_ema + 0.001 * real.mean().item()
                self.fake_ema = 0.999 * self.fake_ema + 0.001 * fake.mean().item()
                lecam = F.relu(real - self.fake_ema).pow(2).mean()
                lecam = lecam + F.relu(self.real_ema - fake).pow(2).mean()
                total = lecam * self.lecam_weight + adversarial
            loss, is_on = factor * total, factor != 0
            log = {
                "disc_loss": loss if is_on else zero,
                "logits_real": real.mean() if is_on else zero,
                "logits_fake": fake.mean() if is_on else zero,
                "disc_factor": torch.tensor(factor),
                "lecam_loss": lecam,
                "non_saturated_d_loss": adversarial,
            }
            return loss, {f"train/{k}": v.detach() for k, v in log.items()}
        rec, p = (x - y).abs(), self.lpips(x, y)
        nll = (rec + p).mean()
        g = non_saturating_g(self.critic(y))
        if self.gen_weight is None:
            d_weight = adaptive_weight(nll, g, last_layer) * self.weight
        else:
            d_weight = torch.tensor(self.gen_weight, dtype=x.dtype)
        g = d_weight * factor * g
        entropy = self.codebook_weight * codebook
        if self.ratio > 0:
            entropy = self.ratio * max(0, 1 - step / self.steps) * entropy + entropy
        loss = nll + g + entropy + parts.commitment * self.commit_weight
        is_on = factor != 0
        log = {
            "total_loss": loss,
            "per_sample_entropy": parts.per_sample_entropy,
            "codebook_entropy": parts.codebook_entropy,
            "commit_loss": parts.commitment,
            **({"entropy_loss": codebook} if is_on else {}),
            "nll_loss": nll,
            "reconstruct_loss": rec.mean(),
            "perceptual_loss": p.mean(),
            "d_weight": d_weight if is_on else zero,
            "disc_factor": torch.tensor(factor),
            "g_loss": g if is_on else zero,
        }
        return loss, {f"train/{k}": v.detach() for k, v in log.items()}
