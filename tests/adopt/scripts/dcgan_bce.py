"""BCE with filled label tensors, a backward for each side (the DCGAN tutorial's way)."""

import torch
import torch.nn as nn

netG, netD = nn.Linear(4, 6), nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))
criterion = nn.BCEWithLogitsLoss()
optimizerD = torch.optim.Adam(netD.parameters(), lr=1e-2)
optimizerG = torch.optim.Adam(netG.parameters(), lr=1e-2)
real_label, fake_label = 1.0, 0.0

for step in range(STEPS):
    data = torch.randn(5, 6)
    netD.zero_grad()
    label = torch.full((5, 1), 1.0)
    output = netD(data)
    errD_real = criterion(output, label)
    errD_real.backward()
    fake = netG(torch.randn(5, 4))
    errD_fake = criterion(netD(fake.detach()), torch.full((5, 1), 0.0))
    errD_fake.backward()
    optimizerD.step()
    netG.zero_grad()
    errG = criterion(netD(fake), label)
    errG.backward()
    optimizerG.step()
