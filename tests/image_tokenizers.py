"""Tokenizers as VQGAN-type trainers have them, and the networks that judge their images.

Written from the papers, in the proportions of the public configurations; the widths are free.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Residual(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        groups = min(8, channels)
        self.first = nn.Sequential(
            nn.GroupNorm(groups, channels), nn.SiLU(), nn.Conv2d(channels, width, 3, 1, 1)
        )
        self.second = nn.Sequential(
            nn.GroupNorm(min(8, width), width), nn.SiLU(), nn.Conv2d(width, width, 3, 1, 1)
        )
        self.shortcut = nn.Conv2d(channels, width, 1) if channels != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.second(self.first(x))


class ConvTokenizer(nn.Module):
    """VQGAN with four halvings (Esser et al., 2021), without its attention and its codebook."""

    def __init__(self, width: int = 8, latent: int = 4, factors: tuple[int, ...] = (1, 2)) -> None:
        super().__init__()
        encoder: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1)]
        channels = width
        for k, factor in enumerate(factors):
            encoder += [
                _Residual(channels, width * factor),
                _Residual(width * factor, width * factor),
            ]
            channels = width * factor
            if k + 1 < len(factors):
                encoder.append(nn.Conv2d(channels, channels, 3, 2, 1))
        encoder.append(nn.Conv2d(channels, latent, 3, 1, 1))
        decoder: list[nn.Module] = [nn.Conv2d(latent, channels, 3, 1, 1)]
        for k, factor in reversed(list(enumerate(factors))):
            for _ in range(3):
                decoder.append(_Residual(channels, width * factor))
                channels = width * factor
            if k:
                decoder += [nn.Upsample(scale_factor=2), nn.Conv2d(channels, channels, 3, 1, 1)]
        self.encoder, self.body = nn.Sequential(*encoder), nn.Sequential(*decoder, nn.SiLU())
        self.last = nn.Conv2d(channels, 3, 3, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        latents = self.encoder(x)
        return self.last(self.body(latents)), latents


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.qkv = nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attention = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1) @ v
        x = x + self.out(attention.transpose(1, 2).flatten(2))
        return x + self.mlp(x)


class PatchTokenizer(nn.Module):
    """A transformer on patches at both ends, as ViT-VQGAN (Yu et al., 2022) has it."""

    def __init__(self, width: int = 16, depth: int = 2, patch: int = 4, heads: int = 2) -> None:
        super().__init__()
        self.patch = patch
        self.embedding = nn.Conv2d(3, width, patch, patch)
        self.encoder = nn.Sequential(*(_Block(width, heads) for _ in range(depth)))
        self.decoder = nn.Sequential(*(_Block(width, heads) for _ in range(depth)))
        self.last = nn.Linear(width, 3 * patch * patch)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        latents = self.encoder(self.embedding(x).flatten(2).transpose(1, 2))
        patches = self.last(self.decoder(latents)).transpose(1, 2)
        return F.fold(patches, x.shape[2:], self.patch, stride=self.patch), latents


class Perceptual(nn.Module):
    """LPIPS (Zhang et al., 2018) on a VGG16, frozen."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        channels = 3
        for factor, depth in ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3)):
            layers: list[nn.Module] = [] if channels == 3 else [nn.MaxPool2d(2)]
            for _ in range(depth):
                layers += [nn.Conv2d(channels, width * factor, 3, 1, 1), nn.ReLU()]
                channels = width * factor
            self.stages.append(nn.Sequential(*layers))
        self.requires_grad_(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        distance = torch.zeros((), dtype=x.dtype, device=x.device)
        for stage in self.stages:
            x, y = stage(x), stage(y)
            distance = distance + (F.normalize(x) - F.normalize(y)).square().sum(1).mean()
        return distance
