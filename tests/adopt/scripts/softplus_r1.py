"""Softplus losses and a lazy R1 in functions (StyleGAN2's way)."""

import torch
from torch import autograd, nn
from torch.nn import functional as F

g, d = nn.Linear(4, 6), nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
g_optim = torch.optim.Adam(g.parameters(), lr=1e-2, betas=(0.0, 0.99))
d_optim = torch.optim.Adam(d.parameters(), lr=1e-2, betas=(0.0, 0.99))


def d_logistic_loss(real_pred, fake_pred):
    real_loss = F.softplus(-real_pred)
    fake_loss = F.softplus(fake_pred)

    return real_loss.mean() + fake_loss.mean()


def d_r1_loss(real_pred, real_img):
    (grad_real,) = autograd.grad(outputs=real_pred.sum(), inputs=real_img, create_graph=True)
    grad_penalty = grad_real.pow(2).reshape(grad_real.shape[0], -1).sum(1).mean()
    return grad_penalty


def g_nonsaturating_loss(fake_pred):
    return F.softplus(-fake_pred).mean()


for step in range(STEPS):
    real_img = torch.randn(5, 6)
    d_loss = d_logistic_loss(d(real_img), d(g(torch.randn(5, 4)).detach()))
    d.zero_grad()
    d_loss.backward()
    d_optim.step()
    if step % 4 == 0:
        real_img.requires_grad = True
        r1_loss = d_r1_loss(d(real_img), real_img)
        d.zero_grad()
        (10 / 2 * r1_loss * 4).backward()
        d_optim.step()
    g_loss = g_nonsaturating_loss(d(g(torch.randn(5, 4))))
    g.zero_grad()
    g_loss.backward()
    g_optim.step()
