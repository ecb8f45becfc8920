"""Lists of outputs and of feature maps in loops (HiFi-GAN's way)."""

import torch
import torch.nn as nn
import torch.nn.functional as F


class Critics(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv1d(1, 3, k, padding="same") for k in (3, 5))
        self.heads = nn.ModuleList(nn.Conv1d(3, 1, 1) for _ in range(2))

    def forward(self, x):
        maps = [[F.leaky_relu(layer(x), 0.1)] for layer in self.layers]
        outputs = [head(found[-1]) for head, found in zip(self.heads, maps)]
        return outputs, [[*found, output] for found, output in zip(maps, outputs)]


def discriminator_loss(disc_real_outputs, disc_generated_outputs):
    loss = 0
    for dr, dg in zip(disc_real_outputs, disc_generated_outputs):
        r_loss = torch.mean((1 - dr) ** 2)
        g_loss = torch.mean(dg**2)
        loss += r_loss + g_loss
    return loss


def generator_loss(disc_outputs):
    loss = 0
    for dg in disc_outputs:
        loss += torch.mean((1 - dg) ** 2)
    return loss


def feature_loss(fmap_r, fmap_g):
    loss = 0
    for dr, dg in zip(fmap_r, fmap_g):
        for rl, gl in zip(dr, dg):
            loss += torch.mean(torch.abs(rl - gl))
    return loss * 2


generator, discriminator = nn.Conv1d(1, 1, 3, padding=1), Critics()
optim_g = torch.optim.AdamW(generator.parameters(), 1e-2)
optim_d = torch.optim.AdamW(discriminator.parameters(), 1e-2)

for step in range(STEPS):
    y, x = torch.randn(2, 1, 20), torch.randn(2, 1, 20)
    y_hat = generator(x)
    optim_d.zero_grad()
    loss_d = discriminator_loss(discriminator(y)[0], discriminator(y_hat.detach())[0])
    loss_d.backward()
    optim_d.step()
    optim_g.zero_grad()
    _, fmap_r = discriminator(y)
    outputs, fmap_g = discriminator(y_hat)
    loss_g = generator_loss(outputs) + feature_loss(fmap_r, fmap_g) + 45 * F.l1_loss(y_hat, y)
    loss_g.backward()
    optim_g.step()
