"""HiFi-GAN's eight discriminators (Kong et al., 2020), written from the paper.

They stand for the workload that gains most: many outputs, 54 feature maps, and a generator step
that is mostly discriminator. Layers, widths and strides are the paper's. Weight and spectral
normalisation are left out: they change no shape, and spectral norm's running state would make
two passes over the same weights differ.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SAMPLES = 8192  # of one training clip
PERIODS = (2, 3, 5, 7, 11)
LEAK = 0.1
# Outputs of the eight discriminators for one clip: logits per clip.
OUTPUT_SIZES = (102, 102, 105, 105, 110, 128, 65, 33)


class PeriodDiscriminator(nn.Module):
    """Looks at every ``period``-th sample: audio folded to [B, 1, T / period, period]."""

    def __init__(self, period: int, width: int = 32) -> None:
        super().__init__()
        self.period = period
        channels = (1, width, 4 * width, 16 * width, 32 * width)
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, (5, 1), stride=(3, 1), padding=(2, 0))
            for before, after in itertools.pairwise(channels)
        )
        self.layers.append(nn.Conv2d(32 * width, 32 * width, (5, 1), padding=(2, 0)))
        self.last = nn.Conv2d(32 * width, 1, (3, 1), padding=(1, 0))

    def forward(self, audio: Tensor) -> list[Tensor]:
        """[B, 1, T] to six feature maps, the last of them the logits."""
        audio = F.pad(audio, (0, -audio.shape[2] % self.period), mode="reflect")
        x = audio.unflatten(2, (-1, self.period))
        maps = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), LEAK)
            maps.append(x)
        return [*maps, self.last(x)]


class ScaleDiscriminator(nn.Module):
    """Looks at the waveform itself, with grouped convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                nn.Conv1d(1, 128, 15, padding=7),
                nn.Conv1d(128, 128, 41, stride=2, groups=4, padding=20),
                nn.Conv1d(128, 256, 41, stride=2, groups=16, padding=20),
                nn.Conv1d(256, 512, 41, stride=4, groups=16, padding=20),
                nn.Conv1d(512, 1024, 41, stride=4, groups=16, padding=20),
                nn.Conv1d(1024, 1024, 41, groups=16, padding=20),
                nn.Conv1d(1024, 1024, 5, padding=2),
            ]
        )
        self.last = nn.Conv1d(1024, 1, 3, padding=1)

    def forward(self, audio: Tensor) -> list[Tensor]:
        """[B, 1, T] to eight feature maps, the last of them the logits."""
        maps = []
        x = audio
        for layer in self.layers:
            x = F.leaky_relu(layer(x), LEAK)
            maps.append(x)
        return [*maps, self.last(x)]


class Discriminators(nn.Module):
    """Five periods, then three scales."""

    def __init__(self) -> None:
        super().__init__()
        self.periods = nn.ModuleList(PeriodDiscriminator(period) for period in PERIODS)
        self.scales = nn.ModuleList(ScaleDiscriminator() for _ in range(3))

    def forward(self, audio: Tensor) -> list[list[Tensor]]:
        """[B, 1, T] to the feature maps of each discriminator."""
        found = [discriminator(audio) for discriminator in self.periods]
        for k, discriminator in enumerate(self.scales):
            if k > 0:
                audio = F.avg_pool1d(audio, 4, stride=2, padding=2)
            found.append(discriminator(audio))
        return found


def build_generator() -> nn.Module:
    """A stand-in small enough that a generator step measures the discriminators."""
    return nn.Sequential(
        nn.Conv1d(1, 32, 7, padding=3), nn.LeakyReLU(LEAK), nn.Conv1d(32, 1, 7, padding=3)
    )


def feature_maps(device: torch.device, batch: int) -> list[Tensor]:
    """The 54 maps of one random clip, flat."""
    with torch.no_grad():
        discriminators = Discriminators().to(device)
        audio = torch.randn(batch, 1, SAMPLES, device=device)
        return [fmap for maps in discriminators(audio) for fmap in maps]
