"""A HiFi-GAN-style vocoder: mel spectrograms back to sound, judged by several critics at once.

    python -m examples.vocoder --losses fast --picture vocoder.png

Least squares over all critics, twice the feature matching, 45 times L1 of the mel spectrograms
(Kong et al., 2020). The sound is synthesised and only resembles speech.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from torch import Tensor, nn

import ganloss_fast as gf
from examples import setting
from ganloss_fast.bench.train import speech

PERIODS = (1, 2, 3, 5, 7)
MATCHING, MEL = 2.0, 45.0


class Critic(nn.Module):
    """Folds the wave by its period, and returns all its maps, the logits last."""

    def __init__(self, period: int, width: int = 16) -> None:
        super().__init__()
        self.period = period
        widths = (1, width, 2 * width, 4 * width)
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, (5, 1), (3, 1), (2, 0))
            for before, after in itertools.pairwise(widths)
        )
        self.layers.append(nn.Conv2d(4 * width, 1, (3, 1), 1, (1, 0)))

    def forward(self, wave: Tensor) -> list[Tensor]:
        wave = F.pad(wave, (0, -wave.shape[2] % self.period), "reflect")
        x, maps = wave.unflatten(2, (-1, self.period)), []
        for layer in self.layers:
            maps.append(layer(x))
            x = F.leaky_relu(maps[-1], 0.1)
        return maps


class Reference:
    """As people write it."""

    def critic_backward(self, critics: nn.ModuleList, real: Tensor, fake: Tensor) -> Tensor:
        loss = 0
        for critic in critics:
            real_logits, fake_logits = critic(real)[-1], critic(fake)[-1]
            loss = loss + torch.mean((1 - real_logits) ** 2) + torch.mean(fake_logits**2)
        loss.backward()
        return loss

    def generator_backward(
        self, critics: nn.ModuleList, generator: nn.Module, real: Tensor, fake: Tensor
    ) -> Tensor:
        loss = MEL * F.l1_loss(speech.log_mel(fake), speech.log_mel(real))
        for critic in critics:
            real_maps, fake_maps = critic(real), critic(fake)
            loss = loss + torch.mean((1 - fake_maps[-1]) ** 2)
            for theirs, ours in zip(real_maps, fake_maps):
                loss = loss + MATCHING * torch.mean(torch.abs(theirs - ours))
        loss.backward()
        return loss


class Fast:
    def critic_backward(self, critics: nn.ModuleList, real: Tensor, fake: Tensor) -> Tensor:
        real_logits = [critic(real)[-1] for critic in critics]
        fake_logits = [critic(fake)[-1] for critic in critics]
        loss = gf.discriminator_loss(real_logits, fake_logits, "least_squares")
        loss.backward()
        return loss

    def generator_backward(
        self, critics: nn.ModuleList, generator: nn.Module, real: Tensor, fake: Tensor
    ) -> Tensor:
        loss = MEL * F.l1_loss(speech.log_mel(fake), speech.log_mel(real))
        with gf.frozen(critics):  # they pass the gradient through, and get none themselves
            fake_maps = [critic(fake) for critic in critics]
            with torch.no_grad():  # targets
                real_maps = [critic(real) for critic in critics]
        loss = loss + gf.generator_loss([maps[-1] for maps in fake_maps], "least_squares")
        loss = loss + gf.feature_matching_loss(real_maps, fake_maps, weight=MATCHING)
        loss.backward()
        return loss


def spectrogram(wave: Tensor) -> setting.Panel:
    """Of one wave [1, 1, T]."""
    mel = speech.log_mel(wave)[0].detach().cpu().numpy()

    def panel(axis: Axes) -> None:
        axis.imshow(mel, origin="lower", aspect="auto", vmin=-6, vmax=3)
        axis.set_xlabel("frame")
        axis.set_ylabel("mel band")

    return panel


def main(arguments: Sequence[str] | None = None) -> setting.Log:
    options = setting.start(setting.parser(__doc__, steps=200, batch=8, size=2048), arguments)
    losses = {"reference": Reference, "fast": Fast}[options.losses]()
    sounds = speech.synthesise(64, 2 * options.size)
    critics, generator = (
        nn.ModuleList(Critic(period) for period in PERIODS),
        speech.build_generator(),
    )
    to_critics = torch.optim.AdamW(critics.parameters(), 2e-4, betas=(0.8, 0.99))
    to_generator = torch.optim.AdamW(generator.parameters(), 1e-3, betas=(0.8, 0.99))
    log = setting.Log(options.steps)

    for _ in range(options.steps):
        start = int(torch.randint(options.size, ()))
        real = setting.draw(sounds, options.batch)[..., start : start + options.size]
        fake = generator(speech.log_mel(real))
        to_critics.zero_grad()
        critic_loss = losses.critic_backward(critics, real, fake.detach())
        to_critics.step()

        to_generator.zero_grad()
        generator_loss = losses.generator_backward(critics, generator, real, fake)
        to_generator.step()
        log.add(critics=critic_loss, generator=generator_loss)

    unheard = speech.synthesise(1, 8192)
    panels = {
        "speech-like, synthesised": spectrogram(unheard),
        "through the vocoder": spectrogram(generator(speech.log_mel(unheard))),
    }
    log.draw(options.picture, f"vocoder, {options.steps} steps, {options.losses}", panels)
    return log


if __name__ == "__main__":
    main()
