"""A trainer with its criterion as an attribute, losses that it logs."""

import torch
from torch import nn


class Trainer:
    def __init__(self):
        self.generator = nn.Linear(4, 6)
        self.discriminator = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))
        self.criterion = nn.BCEWithLogitsLoss()
        self.opt_d = torch.optim.Adam(self.discriminator.parameters(), lr=1e-2)
        self.opt_g = torch.optim.Adam(self.generator.parameters(), lr=1e-2)
        self.log = []

    def discriminator_step(self, real, fake):
        logits_real = self.discriminator(real)
        logits_fake = self.discriminator(fake.detach())
        real_loss = self.criterion(logits_real, torch.ones_like(logits_real))
        fake_loss = self.criterion(logits_fake, torch.zeros_like(logits_fake))
        loss = (real_loss + fake_loss) / 2.0
        self.log.append((real_loss.item(), fake_loss.item()))
        self.opt_d.zero_grad()
        loss.backward()
        self.opt_d.step()

    def generator_step(self, fake):
        logits = self.discriminator(fake)
        loss = self.criterion(logits, torch.ones_like(logits))
        self.opt_g.zero_grad()
        loss.backward()
        self.opt_g.step()


trainer = Trainer()
for step in range(STEPS):
    fake = trainer.generator(torch.randn(5, 4))
    trainer.discriminator_step(torch.randn(5, 6), fake)
    trainer.generator_step(fake)
generator, discriminator = trainer.generator, trainer.discriminator
