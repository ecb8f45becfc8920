"""The penalties and the path length of mmagic and mmgeneration in plain PyTorch."""

from __future__ import annotations

import numpy as np
import torch
from image_codebases import Generator, images, logits


def plain_penalty(g, mode, target, mask):
    g = g if mask is None else g * mask
    norms = g.norm(2, dim=1) if mode == "pixel" else g.flatten(1).norm(2, dim=1)
    penalty = ((norms - target) ** 2).mean()
    return penalty if mask is None else penalty / mask.mean()


def plain_gradient(D, x):
    out = D(x)
    (g,) = torch.autograd.grad(out, x, torch.ones_like(out), create_graph=True)
    return g


def plain_gp(D, mask=None, mode="pixel", samples=None):
    real, fake = samples or (images(), images(1))
    alpha = torch.rand(real.shape[0], 1, 1, 1).to(real)
    x = (alpha * real + (1 - alpha) * fake).requires_grad_()
    return plain_penalty(plain_gradient(D, x), mode, 1.0, mask)


def plain_r1(D, mask=None, mode="pixel", real=None):
    real = images() if real is None else real.clone()
    return plain_penalty(plain_gradient(D, real.requires_grad_()), mode, 0.0, mask)


class Styled(Generator):
    """mmagic's call of a generator: no noise, a batch size, a dict."""

    def forward(self, noise, num_batches, return_latents):
        assert noise is None
        assert return_latents
        ws = logits(num_batches, 3, 4)
        return {"fake_img": super().forward(ws.sum(1)) * ws.square().mean(), "latent": ws}


def plain_path_length(G, batch, mean, decay=0.01):
    outputs = G(None, num_batches=batch, return_latents=True)
    x, ws = outputs["fake_img"], outputs["latent"]
    noise = torch.randn_like(x) / np.sqrt(x.shape[2] * x.shape[3])
    (g,) = torch.autograd.grad((x * noise).sum(), ws, create_graph=True)
    lengths = g.pow(2).sum(2).mean(1).sqrt()
    new_mean = mean + decay * (lengths.mean() - mean)
    return (lengths - new_mean).pow(2).mean(), new_mean.detach(), lengths.detach()
