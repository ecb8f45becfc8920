"""HiFi-GAN's losses: eight discriminators with their feature maps, each loss one call.

Run it with ``python examples/vocoder_lists.py [steps]``.

Waves of three sines are made from noise; what matters here is the shape of the losses.
"""

import sys

import torch
from torch import nn

import ganloss_fast as gf

torch.manual_seed(0)
steps = int(sys.argv[1]) if len(sys.argv) > 1 else 30


class Discriminator(nn.Module):
    """One of the eight: looks at the wave with its own stride, returns all its maps."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.Conv1d(1, 8, 15, stride, 7), nn.Conv1d(8, 16, 15, 2, 7), nn.Conv1d(16, 1, 3, 1, 1)]
        )

    def forward(self, wave: torch.Tensor) -> list[torch.Tensor]:
        maps = []
        for layer in self.layers:
            wave = layer(wave)
            maps.append(wave)
            wave = nn.functional.leaky_relu(wave, 0.1)
        return maps  # the last one holds the logits


def sines(count: int, length: int = 1024) -> torch.Tensor:  # [count, 1, length]
    pitch = 0.02 + 0.2 * torch.rand(count, 3, 1)
    return (pitch * torch.arange(length)).sin().mean(1, keepdim=True)


generator = nn.Sequential(nn.Conv1d(1, 32, 31, 1, 15), nn.ReLU(), nn.Conv1d(32, 1, 31, 1, 15))
discriminators = nn.ModuleList([Discriminator(stride) for stride in (1, 2, 3, 4, 5, 7, 8, 11)])
to_generator = torch.optim.AdamW(generator.parameters(), 2e-4, betas=(0.8, 0.99))
to_discriminators = torch.optim.AdamW(discriminators.parameters(), 2e-4, betas=(0.8, 0.99))

for step in range(steps):
    real, fake = sines(8), generator(torch.randn(8, 1, 1024))
    real_logits = [d(real)[-1] for d in discriminators]
    fake_logits = [d(fake.detach())[-1] for d in discriminators]
    loss = gf.discriminator_loss(real_logits, fake_logits, "least_squares")
    to_discriminators.zero_grad()
    loss.backward()
    to_discriminators.step()

    # The discriminators only pass the gradient through: their own is not computed, and no graph
    # is built for the real maps, which are targets.
    with gf.frozen(discriminators):
        fake_maps = [d(fake) for d in discriminators]
        with torch.no_grad():
            real_maps = [d(real) for d in discriminators]
        loss_g = gf.generator_loss([maps[-1] for maps in fake_maps], "least_squares")
        loss_g = loss_g + gf.feature_matching_loss(real_maps, fake_maps, weight=2.0)
    to_generator.zero_grad()
    loss_g.backward()
    to_generator.step()
    if step % 10 == 9:
        print(f"step {step + 1:3}  critic {loss.item():6.3f}  generator {loss_g.item():6.3f}")
