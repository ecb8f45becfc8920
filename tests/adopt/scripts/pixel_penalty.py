"""A norm for each pixel, since nobody flattened; least squares with labels -1, 1 and 0."""

import torch
from torch import nn

net_g = nn.Sequential(nn.Linear(4, 12), nn.Unflatten(1, (3, 2, 2)))
net_d = nn.Sequential(nn.Conv2d(3, 5, 1), nn.ReLU(), nn.Conv2d(5, 1, 1))
optim_g = torch.optim.Adam(net_g.parameters(), lr=1e-2)
optim_d = torch.optim.Adam(net_d.parameters(), lr=1e-2)

for step in range(STEPS):
    real, fake = torch.randn(5, 3, 2, 2), net_g(torch.randn(5, 4))
    alpha = torch.rand(5, 1, 1, 1)
    mixed = torch.autograd.Variable(alpha * real + (1 - alpha) * fake.detach(), requires_grad=True)
    disc_mixed = net_d(mixed)
    gradients = torch.autograd.grad(
        disc_mixed, mixed, torch.ones_like(disc_mixed), create_graph=True, retain_graph=True
    )[0]
    penalty = ((gradients.norm(2, dim=1) - 1) ** 2).mean()
    loss_d = ((net_d(real) - 1) ** 2).mean() + ((net_d(fake.detach()) + 1) ** 2).mean() + penalty
    optim_d.zero_grad()
    loss_d.backward()
    optim_d.step()
    loss_g = torch.mean(net_d(fake).pow(2))
    optim_g.zero_grad()
    loss_g.backward()
    optim_g.step()
