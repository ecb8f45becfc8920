"""A hinge of relus in one expression, critics with spectral norm, a mean for the generator."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import spectral_norm

G = nn.Linear(4, 6)
D = nn.Sequential(spectral_norm(nn.Linear(6, 8)), nn.LeakyReLU(0.2), spectral_norm(nn.Linear(8, 1)))
d_optim = torch.optim.Adam(D.parameters(), lr=1e-2)
g_optim = torch.optim.Adam(G.parameters(), lr=1e-2)

for step in range(STEPS):
    real = torch.randn(5, 6)
    d_optim.zero_grad()
    fake = G(torch.randn(5, 4)).detach()
    d_loss = F.relu(1.0 - D(real)).mean() + F.relu(1.0 + D(fake)).mean()
    d_loss.backward()
    d_optim.step()
    g_optim.zero_grad()
    g_loss = -D(G(torch.randn(5, 4))).mean()
    g_loss.backward()
    g_optim.step()
