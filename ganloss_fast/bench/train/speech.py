"""A speech-like signal, synthesised: a gliding voice through two moving formants, in syllables.

It has what a vocoder has to learn, pitch, formants and loudness, and needs no recording. Here are
the signal, its log mel spectrogram, and a small network from the one back to the other.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

RATE = 8000  # samples a second
WINDOW, HOP, BANDS = 256, 64, 32


def _glide(count: int, low: float, high: float, time: Tensor) -> Tensor:
    """[count, T]: values that wander between low and high, each at its own pace."""
    pace, phase = 1 + 3 * torch.rand(count, 1), 2 * math.pi * torch.rand(count, 1)
    centre = low + (high - low) * (0.3 + 0.4 * torch.rand(count, 1))
    return centre + 0.3 * (high - low) * (2 * math.pi * pace * time + phase).sin()


def synthesise(count: int, length: int) -> Tensor:
    """[count, 1, length] in [-1, 1]."""
    time = torch.arange(length) / RATE
    pitch = _glide(count, 90.0, 220.0, time)
    phase = 2 * math.pi * pitch.cumsum(1) / RATE
    first, second = _glide(count, 300.0, 800.0, time), _glide(count, 900.0, 2400.0, time)
    wave = 0.02 * torch.randn(count, length)  # breath
    for harmonic in range(1, 25):
        frequency = harmonic * pitch
        loudness = (-(((frequency - first) / 200) ** 2)).exp()
        loudness = loudness + 0.6 * (-(((frequency - second) / 300) ** 2)).exp()
        wave = wave + loudness * (harmonic * phase).sin()
    wave = wave * _glide(count, 0.0, 1.0, time)  # syllables
    return (0.9 * wave / wave.abs().amax(1, keepdim=True))[:, None]


def _mel_filters() -> Tensor:
    """[BANDS, WINDOW / 2 + 1]: overlapping triangles, evenly spaced on the mel scale."""
    top = 2595 * math.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, BANDS + 2) / 2595) - 1)
    frequencies = torch.linspace(0, RATE / 2, WINDOW // 2 + 1)
    rising = (frequencies - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequencies) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp(min=0)


def log_mel(wave: Tensor) -> Tensor:
    """[B, 1, T] to [B, BANDS, T / HOP]."""
    window = torch.hann_window(WINDOW)
    spectrum = torch.stft(wave[:, 0], WINDOW, HOP, window=window, return_complex=True)
    magnitude = (spectrum.real**2 + spectrum.imag**2 + 1e-9).sqrt()[..., :-1]
    return (_mel_filters() @ magnitude).clamp(min=1e-5).log()


def build_generator(width: int = 64) -> nn.Sequential:
    """Log mel [B, BANDS, T / 64] to sound [B, 1, T]."""
    return nn.Sequential(
        *[nn.Conv1d(BANDS, width, 7, 1, 3), nn.LeakyReLU(0.1)],
        *[nn.ConvTranspose1d(width, width // 2, 16, 8, 4), nn.LeakyReLU(0.1)],
        *[nn.ConvTranspose1d(width // 2, width // 4, 16, 8, 4), nn.LeakyReLU(0.1)],
        *[nn.Conv1d(width // 4, 1, 7, 1, 3), nn.Tanh()],
    )
