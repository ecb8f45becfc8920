"""A generator step of a VQGAN trainer, and the same written out with two gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from image_tokenizers import Perceptual
from torch import Tensor, nn

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


def small_critic() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 4))


class Trainer:
    """One generator step of a VQGAN: reconstruction with a learned variance, adversarial and
    codebook loss."""

    def __init__(self, tokenizer: Callable[[], nn.Module], dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        self.tokenizer = tokenizer().to(dtype)
        self.critic, self.perceptual = small_critic().to(dtype), Perceptual().to(dtype)
        self.logvar = nn.Parameter(torch.full((), 0.1, dtype=dtype))
        self.images = torch.rand(2, 3, 16, 16, dtype=dtype)

    def losses(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """nll, adversarial and codebook loss, and the reconstruction."""
        images, latents = self.tokenizer(self.images)
        distance = F.l1_loss(images, self.images) + self.perceptual(images, self.images)
        nll = distance / self.logvar.exp() + self.logvar
        return nll, -self.critic(images).mean(), latents.square().mean(), images

    def gradients(self) -> list[Tensor]:
        return [p.grad for p in (*self.tokenizer.parameters(), self.logvar)]


def norm_ratio(first: Tensor, second: Tensor) -> Tensor:
    """As taming-transformers weighs."""
    return (first.norm() / (second.norm() + 1e-4)).clamp(0.0, 1e4).detach()


def written_out(trainer: Trainer, factor: float = 0.5) -> tuple[Tensor, Tensor]:
    """Two gradients of the last layer, each by way of everything after it, and one backward."""
    nll, g, codebook, _ = trainer.losses()
    last = trainer.tokenizer.last.weight
    (of_nll,) = torch.autograd.grad(nll, last, retain_graph=True)
    (of_g,) = torch.autograd.grad(g, last, retain_graph=True)
    weight = factor * norm_ratio(of_nll, of_g)
    total = nll + weight * g + codebook
    total.backward()
    return weight, total.detach()


def assert_close(ours: Sequence[Tensor], theirs: Sequence[Tensor], tolerance: float) -> None:
    """Relative to the largest: in front of a normalisation, true gradients of biases are 0."""
    largest = max(t.norm() for t in theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).norm() <= tolerance * largest
