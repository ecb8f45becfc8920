"""GAN losses in plain PyTorch, as people write them in their own training scripts.

The baseline of everything measured here. Written as the popular repositories write it, not
tuned up or down; it knows nothing of ganloss_fast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# ---- discriminator: real and fake logits of any shape -> [] ------------------------------------


def discriminator_bce(real: Tensor, fake: Tensor) -> Tensor:
    real_loss = F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
    fake_loss = F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))
    return real_loss + fake_loss


def discriminator_hinge(real: Tensor, fake: Tensor) -> Tensor:
    return torch.mean(F.relu(1.0 - real)) + torch.mean(F.relu(1.0 + fake))


def discriminator_least_squares(real: Tensor, fake: Tensor) -> Tensor:
    return torch.mean((real - 1) ** 2) + torch.mean(fake**2)


def discriminator_wasserstein(real: Tensor, fake: Tensor) -> Tensor:
    return fake.mean() - real.mean()


DISCRIMINATOR_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bce": discriminator_bce,
    "hinge": discriminator_hinge,
    "least_squares": discriminator_least_squares,
    "wasserstein": discriminator_wasserstein,
}

# ---- generator: fake logits -> [] --------------------------------------------------------------


def generator_bce(fake: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(fake, torch.ones_like(fake))


def generator_least_squares(fake: Tensor) -> Tensor:
    return torch.mean((fake - 1) ** 2)


def generator_linear(fake: Tensor) -> Tensor:
    return -fake.mean()


GENERATOR_LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "bce": generator_bce,
    "hinge": generator_linear,
    "least_squares": generator_least_squares,
    "wasserstein": generator_linear,
}

# ---- gradient penalty --------------------------------------------------------------------------


def interpolate(real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    """alpha [B, 1, 1, 1]."""
    return alpha * real + (1 - alpha) * fake


def penalty(gradient: Tensor) -> Tensor:
    """Of an input gradient [B, ...]."""
    gradient = gradient.view(gradient.size(0), -1)
    penalty: Tensor = ((gradient.norm(2, dim=1) - 1) ** 2).mean()
    return penalty


def gradient_penalty(
    critic: Callable[[Tensor], Tensor],
    real: Tensor,
    fake: Tensor,
    rng: torch.Generator | None = None,
    weight: float = 10.0,
) -> Tensor:
    """Of images [B, C, H, W], which carry no gradient themselves."""
    alpha = torch.rand(real.size(0), 1, 1, 1, generator=rng, device=real.device)
    mixed = torch.lerp(fake, real, alpha).requires_grad_(True)
    logits = critic(mixed)
    (gradient,) = torch.autograd.grad(
        outputs=logits,
        inputs=mixed,
        grad_outputs=torch.ones_like(logits),
        create_graph=True,
        retain_graph=True,
    )
    return weight * penalty(gradient)


# ---- HiFi-GAN: lists of logits and of feature maps ---------------------------------------------


def list_discriminator_loss(reals: Sequence[Tensor], fakes: Sequence[Tensor]) -> Tensor:
    """Least squares summed over discriminators."""
    loss: Tensor = 0  # type: ignore[assignment]
    for real, fake in zip(reals, fakes):
        loss = loss + (torch.mean((1 - real) ** 2) + torch.mean(fake**2))
    return loss


def logged_list_discriminator_loss(reals: Sequence[Tensor], fakes: Sequence[Tensor]) -> Tensor:
    """The same, keeping each part as a Python number for the log."""
    loss: Tensor = 0  # type: ignore[assignment]
    real_losses, fake_losses = [], []
    for real, fake in zip(reals, fakes):
        real_loss = torch.mean((1 - real) ** 2)
        fake_loss = torch.mean(fake**2)
        loss = loss + (real_loss + fake_loss)
        real_losses.append(real_loss.item())
        fake_losses.append(fake_loss.item())
    return loss


def list_generator_loss(fakes: Sequence[Tensor]) -> Tensor:
    loss: Tensor = 0  # type: ignore[assignment]
    for fake in fakes:
        loss = loss + torch.mean((1 - fake) ** 2)
    return loss


def feature_loss(real_maps: Sequence[Tensor], fake_maps: Sequence[Tensor]) -> Tensor:
    """Mean absolute differences of a flat list of feature maps, times 2."""
    loss: Tensor = 0  # type: ignore[assignment]
    for real, fake in zip(real_maps, fake_maps):
        loss = loss + torch.mean(torch.abs(real - fake))
    return loss * 2


# ---- relativistic losses, and penalties of gradients that are at hand --------------------------


def relativistic_average_bce(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss of ESRGAN, with the other side's mean detached, halved as there."""
    return 0.5 * discriminator_bce(real - fake.detach().mean(), fake - real.detach().mean())


def relativistic_pairing(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss of R3GAN."""
    return F.softplus(fake - real).mean()


def squared_norm(gradient: Tensor) -> Tensor:
    """R1 without a weight, of a gradient [B, ...]."""
    return gradient.square().flatten(1).sum(1).mean()
