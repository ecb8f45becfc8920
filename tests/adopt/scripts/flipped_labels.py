"""Class-based trainer; helper functions; a list of critics; soft labels with flips."""

import torch
from torch import nn


def soft(like, value, flip=0.1):
    t = torch.full_like(like, value)
    mask = torch.rand_like(like) < flip
    t[mask] = 1 - value
    return t


class Trainer:
    def __init__(self):
        torch.manual_seed(1)
        self.gen = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 6))
        self.critics = nn.ModuleList(
            nn.Sequential(nn.Linear(6, 8 * k), nn.Dropout(0.3), nn.Tanh(), nn.Linear(8 * k, 1))
            for k in (1, 2)
        )
        self.g_opt = torch.optim.Adam(self.gen.parameters(), 1e-3)
        self.d_opt = torch.optim.Adam(self.critics.parameters(), 1e-3)
        self.bce = nn.BCEWithLogitsLoss()
        self.real_stats = []

    def critic_loss(self, real, fake):
        total = 0.0
        for critic in self.critics:
            r = critic(real)
            f = critic(fake.detach())
            total = total + self.bce(r, soft(r, 0.9)) + self.bce(f, torch.zeros_like(f))
            self.real_stats.append(r.mean().item() - f.mean().item())
        return total / len(self.critics)

    def gen_loss(self, fake):
        outs = [critic(fake) for critic in self.critics]
        return sum(self.bce(o, torch.ones_like(o)) for o in outs) / len(outs)

    def step(self, real):
        fake = self.gen(torch.randn(real.size(0), 4))
        self.d_opt.zero_grad()
        self.critic_loss(real, fake).backward()
        self.d_opt.step()
        self.g_opt.zero_grad()
        self.gen_loss(fake).backward()
        self.g_opt.step()


trainer = Trainer()
for batch in torch.randn(STEPS, 8, 6):
    trainer.step(batch)
m1, m2 = trainer.gen, trainer.critics
