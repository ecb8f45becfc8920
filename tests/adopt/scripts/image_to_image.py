"""A conditional critic, an L1 of weight 100 beside the adversarial loss, in functions."""

import torch
from torch import nn

bce, l1 = nn.BCEWithLogitsLoss(), nn.L1Loss()
G, D = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(2, 1, 3)
opt_G = torch.optim.Adam(G.parameters(), lr=1e-2)
opt_D = torch.optim.Adam(D.parameters(), lr=1e-2)


def critic(x, y):
    return D(torch.cat([x, y], dim=1))


for step in range(STEPS):
    x, y = torch.randn(2, 1, 6, 6), torch.randn(2, 1, 6, 6)
    y_fake = G(x)
    D_real = critic(x, y)
    D_real_loss = bce(D_real, torch.ones_like(D_real))
    D_fake = critic(x, y_fake.detach())
    D_fake_loss = bce(D_fake, torch.zeros_like(D_fake))
    D_loss = (D_real_loss + D_fake_loss) / 2
    D.zero_grad()
    D_loss.backward()
    opt_D.step()
    D_fake = critic(x, y_fake)
    G_loss = bce(D_fake, torch.ones_like(D_fake)) + 100 * l1(y_fake, y)
    opt_G.zero_grad()
    G_loss.backward()
    opt_G.step()
