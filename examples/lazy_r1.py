"""StyleGAN's recipe in mixed precision: logistic loss every step, R1 every sixteenth.

Run it with ``python examples/lazy_r1.py [steps]``.

float16 with a GradScaler on a GPU, bfloat16 on the CPU. The images are coloured discs.
"""

import sys

import torch
from torch import nn

import ganloss_fast as gf

torch.manual_seed(0)
steps = int(sys.argv[1]) if len(sys.argv) > 1 else 200
device = "cuda" if torch.cuda.is_available() else "cpu"
half = torch.float16 if device == "cuda" else torch.bfloat16


def discs(count: int, size: int = 16) -> torch.Tensor:  # [count, 3, size, size] in [-1, 1]
    axis = torch.linspace(-1, 1, size)
    centre, radius = torch.rand(count, 2, 1, 1) - 0.5, 0.2 + 0.3 * torch.rand(count, 1, 1)
    inside = (axis - centre[:, 0]) ** 2 + (axis[:, None] - centre[:, 1]) ** 2 < radius**2
    return (inside[:, None] * torch.rand(count, 3, 1, 1) * 2 - 1).to(device)


def block(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 4, 2, 1), nn.LeakyReLU(0.2)]


critic = nn.Sequential(*block(3, 16), *block(16, 32), nn.Conv2d(32, 1, 4))
generator = nn.Sequential(
    *[nn.Unflatten(1, (64, 1, 1)), nn.ConvTranspose2d(64, 32, 4), nn.ReLU()],
    *[nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(16, 3, 4, 2, 1)],
    nn.Tanh(),
)
critic, generator = critic.to(device), generator.to(device)
lazy, r1 = gf.LazyRegularizer(every=16), gf.R1(gamma=1.0)
to_generator = torch.optim.Adam(generator.parameters(), 2e-3, betas=(0.0, 0.99))
to_critic = torch.optim.Adam(critic.parameters(), 2e-3, betas=(0.0, 0.99))
scaler = torch.amp.GradScaler(device, enabled=half == torch.float16)

for step in range(steps):
    real, noise = discs(32), torch.randn(32, 64, device=device)
    with torch.autocast(device, dtype=half):
        loss = gf.discriminator_loss(critic(real), critic(generator(noise).detach()), "bce")
        if lazy.is_due(step):
            penalty = gf.r1_penalty(critic, real, r1, inv_scale=scaler)
            loss = loss + lazy.scale * penalty
    to_critic.zero_grad()
    scaler.scale(loss).backward()
    scaler.step(to_critic)

    with torch.autocast(device, dtype=half), gf.frozen(critic):
        loss_g = gf.generator_loss(critic(generator(noise)), "bce")
    to_generator.zero_grad()
    scaler.scale(loss_g).backward()
    scaler.step(to_generator)
    scaler.update()
    if step % 50 == 49:
        print(f"step {step + 1:4}  critic {loss.item():6.3f}  generator {loss_g.item():6.3f}")
