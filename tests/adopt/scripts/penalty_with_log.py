"""WGAN-GP: penalty first in the sum, dropout critic, norms kept for the log."""

import torch
from torch import autograd, nn, optim

torch.manual_seed(3)
netG = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 6))
netD = nn.Sequential(nn.Linear(6, 16), nn.LeakyReLU(0.2), nn.Dropout(0.2), nn.Linear(16, 1))
optimizerD = optim.Adam(netD.parameters(), 1e-3, betas=(0.5, 0.9))
optimizerG = optim.Adam(netG.parameters(), 1e-3, betas=(0.5, 0.9))
history = {"slope": [], "w": []}


def slope_penalty(critic, real, fake):
    eps = torch.rand(real.size(0), 1)
    mid = (eps * real + (1 - eps) * fake.detach()).requires_grad_(True)
    score = critic(mid)
    (grad,) = autograd.grad(
        score, mid, torch.ones_like(score), create_graph=True, retain_graph=True
    )
    slopes = grad.norm(2, dim=1)
    history["slope"].append(slopes.mean().item())
    return ((slopes - 1) ** 2).mean()


for i, real in enumerate(torch.randn(STEPS, 8, 6)):
    netD.zero_grad()
    fake = netG(torch.randn(8, 4))
    loss_D = 10 * slope_penalty(netD, real, fake) + netD(fake).mean() - netD(real).mean()
    loss_D.backward()
    optimizerD.step()
    netG.zero_grad()
    loss_G = -netD(netG(torch.randn(8, 4))).mean()
    loss_G.backward()
    optimizerG.step()
    history["w"].append((netD(real).mean() - netD(fake).mean()).item())
