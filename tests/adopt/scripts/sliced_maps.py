"""pix2pixHD-like: lists of discriminators that give maps, hinge over lists, feature matching."""

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(2)


class Disc(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv1d(1, w, 3), nn.Conv1d(w, w, 3), nn.Conv1d(w, 1, 3)])

    def forward(self, x):
        maps = []
        for k, layer in enumerate(self.layers):
            x = layer(x)
            if k < 2:
                x = F.leaky_relu(x, 0.2)
            maps.append(x)
        return maps


G = nn.Conv1d(1, 1, 3, padding=1)
discs = nn.ModuleList([Disc(3), Disc(5)])
opt_g = torch.optim.SGD(G.parameters(), 0.01)
opt_d = torch.optim.SGD(discs.parameters(), 0.01)


def run(x):
    return [d(x) for d in discs]


for x in torch.randn(STEPS, 4, 1, 16):
    y = G(x + 0.1 * torch.randn_like(x))
    pr, pf = run(x), run(y.detach())
    d_loss = 0
    for a, b in zip(pr, pf):
        d_loss += 0.5 * (F.relu(1.0 - a[-1]).mean() + F.relu(1.0 + b[-1]).mean())
    opt_d.zero_grad()
    d_loss.backward()
    opt_d.step()
    pr, pf = run(x), run(y)
    g_adv = -sum(b[-1].mean() for b in pf)
    fm = 0
    for real_maps, fake_maps in zip(pr, pf):
        for m_r, m_f in zip(real_maps[:-1], fake_maps[:-1]):
            fm = fm + F.l1_loss(m_f, m_r.detach())
    rec = F.l1_loss(y, x)
    g_loss = g_adv + 10.0 * fm + 45 * rec
    opt_g.zero_grad()
    g_loss.backward()
    opt_g.step()
