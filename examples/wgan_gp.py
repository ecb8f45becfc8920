"""WGAN-GP on a ring of eight Gaussians: the smallest complete training loop.

Run it with ``python examples/wgan_gp.py [critic steps]``.
"""

import sys

import torch
from torch import nn

import ganloss_fast as gf

torch.manual_seed(0)
critic_steps = int(sys.argv[1]) if len(sys.argv) > 1 else 2000


def mlp(inputs: int, outputs: int) -> nn.Module:
    hidden = [nn.Linear(inputs, 128), nn.LeakyReLU(0.2), nn.Linear(128, 128), nn.LeakyReLU(0.2)]
    return nn.Sequential(*hidden, nn.Linear(128, outputs))


def ring(count: int) -> torch.Tensor:  # [count, 2]
    angle = torch.randint(8, (count,)) * (torch.pi / 4)
    return torch.stack([angle.cos(), angle.sin()], 1) + 0.02 * torch.randn(count, 2)


generator, critic = mlp(16, 2), mlp(2, 1)
to_generator = torch.optim.Adam(generator.parameters(), 1e-4, betas=(0.5, 0.9))
to_critic = torch.optim.Adam(critic.parameters(), 1e-4, betas=(0.5, 0.9))

for step in range(critic_steps):
    real, fake = ring(256), generator(torch.randn(256, 16)).detach()
    loss = gf.discriminator_loss(critic(real), critic(fake), "wasserstein")
    loss = loss + gf.gradient_penalty(critic, real, fake, gf.WGANGP(weight=10.0))
    to_critic.zero_grad()
    loss.backward()
    to_critic.step()

    if step % 5 == 4:  # five critic steps for one of the generator
        with gf.frozen(critic):
            loss_g = gf.generator_loss(critic(generator(torch.randn(256, 16))), "wasserstein")
        to_generator.zero_grad()
        loss_g.backward()
        to_generator.step()
    if step % 200 == 199:
        print(f"step {step + 1:5}  critic {loss.item():8.3f}  generator {loss_g.item():8.3f}")
