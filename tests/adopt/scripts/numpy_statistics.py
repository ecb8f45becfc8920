"""LSGAN with helper, numpy statistics, EMA of weights and an R1 in a method."""

import numpy as np
import torch
import torch.nn as nn

torch.manual_seed(4)
generator = nn.Sequential(nn.Linear(4, 16), nn.Softplus(), nn.Linear(16, 6))
average = nn.Sequential(nn.Linear(4, 16), nn.Softplus(), nn.Linear(16, 6))
average.load_state_dict(generator.state_dict())
discriminator = nn.Sequential(nn.Linear(6, 16), nn.Softplus(), nn.Linear(16, 1))
g_optimizer = torch.optim.RMSprop(generator.parameters(), 1e-3)
d_optimizer = torch.optim.RMSprop(discriminator.parameters(), 1e-3)
data = np.random.RandomState(0).randn(STEPS, 8, 6)
held_out = np.random.RandomState(1).randn(8, 6)


def lsq(logits, value):
    return ((logits - value) ** 2).mean()


class R1:
    last = None

    def __call__(self, logits, inputs):
        g = torch.autograd.grad(logits.sum(), inputs, create_graph=True)[0]
        sq = g.pow(2).flatten(1).sum(1)
        self.last = sq.detach()
        return sq.mean()


r1 = R1()
shift = data.mean() - held_out.mean()
drift = 0.0
for batch in data:
    x = torch.tensor(batch - shift, dtype=torch.get_default_dtype()).requires_grad_()
    fake = generator(torch.randn(8, 4))
    on_real = discriminator(x)
    on_fake = discriminator(fake)
    loss = (on_real - 1).square().mean() + on_fake.square().mean() + 0.5 * r1(on_real, x)
    d_optimizer.zero_grad()
    loss.backward()
    d_optimizer.step()
    g_optimizer.zero_grad()
    g_loss = lsq(discriminator(generator(torch.randn(8, 4))), 1.0)
    g_loss.backward()
    g_optimizer.step()
    with torch.no_grad():
        for p, q in zip(average.parameters(), generator.parameters()):
            p.lerp_(q, 0.1)
        for p, q in zip(average.parameters(), generator.parameters()):
            drift += torch.mean(torch.abs(p - q))
