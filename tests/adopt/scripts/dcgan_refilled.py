"""DCGAN-tutorial style: torch.full labels refilled in place, two backwards."""

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(0)
gen_net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 6))
judge = nn.Sequential(nn.Linear(6, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
optD = torch.optim.Adam(judge.parameters(), 1e-3)
optG = torch.optim.Adam(gen_net.parameters(), 1e-3)
data = torch.randn(STEPS, 8, 6)

for step, batch in enumerate(data):
    judge.zero_grad()
    label = torch.full((8,), 0.9)
    output = judge(batch).view(-1)
    errD_real = F.binary_cross_entropy_with_logits(output, label)
    errD_real.backward()
    noise = torch.randn(8, 4)
    fake = gen_net(noise)
    label.fill_(0.0)
    output = judge(fake.detach()).view(-1)
    errD_fake = F.binary_cross_entropy_with_logits(output, label)
    errD_fake.backward()
    errD = errD_real + errD_fake
    optD.step()
    gen_net.zero_grad()
    label.fill_(1.0)
    output = judge(fake).view(-1)
    errG = F.binary_cross_entropy_with_logits(output, label)
    errG.backward()
    optG.step()
