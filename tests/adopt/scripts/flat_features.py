"""One critic, its maps in a flat loop, real maps detached; one-sided label smoothing."""

import torch
import torch.nn.functional as F
from torch import nn

generator = nn.Linear(4, 6)
body, head = nn.Linear(6, 8), nn.Linear(8, 1)
discriminator = nn.ModuleList([body, head])
opt_d = torch.optim.SGD(discriminator.parameters(), lr=0.05)
opt_g = torch.optim.SGD(generator.parameters(), lr=0.05)


def maps_of(x):
    hidden = torch.tanh(body(x))
    return [hidden, hidden**2], head(hidden)


for step in range(STEPS):
    real, fake = torch.randn(5, 6), generator(torch.randn(5, 4))
    _, logits_real = maps_of(real)
    _, logits_fake = maps_of(fake.detach())
    loss_d = F.binary_cross_entropy_with_logits(
        logits_real, 0.9 * torch.ones_like(logits_real)
    ) + F.binary_cross_entropy_with_logits(logits_fake, torch.zeros_like(logits_fake))
    opt_d.zero_grad()
    loss_d.backward()
    opt_d.step()
    real_maps, _ = maps_of(real)
    fake_maps, logits = maps_of(fake)
    matching = 0.0
    for r, f in zip(real_maps, fake_maps):
        matching += F.l1_loss(f, r.detach())
    loss_g = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits)) + 10 * matching
    opt_g.zero_grad()
    loss_g.backward()
    opt_g.step()
