"""Style-based generators: StyleGAN2-ADA, of small networks of its kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganloss_fast.bench.steps.training import Form, Training, forms, moved
from ganloss_fast.compat.stylegan2_ada import StyleGAN2Loss

R1_GAMMA, PL_WEIGHT, PL_DECAY, PL_SHRINK, MIXING = 10.0, 2.0, 0.01, 2, 0.9
INTERVALS = {"Gmain": 1, "Greg": 4, "Dmain": 1, "Dreg": 16}
Accumulate = Callable[[str, Tensor, Tensor, Tensor, Tensor, bool, float], None]

# ---- the networks ------------------------------------------------------------------------------


class _Scaled(nn.Module):
    """A layer whose weights are drawn from N(0, 1) and scaled by their fan-in at every call; a
    convolution with a stride takes what was padded already."""

    def __init__(
        self, before: int, after: int, kernel: int = 0, stride: int = 1, bias: float = 0.0
    ) -> None:
        super().__init__()
        shape = (after, before, kernel, kernel) if kernel else (after, before)
        self.weight = nn.Parameter(torch.randn(shape))
        self.bias = nn.Parameter(torch.full((after,), bias))
        self.gain = 1 / math.sqrt(math.prod(shape[1:]))
        self.stride, self.padding = stride, kernel // 2 if stride == 1 else 0

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.gain
        if weight.dim() == 2:
            return F.linear(x, weight, self.bias)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


def _activated(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


def _filtered(x: Tensor, stride: int, padding: int) -> Tensor:
    """Under [1, 3, 3, 1] along rows and columns, channel by channel, as on a CPU there."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device=x.device) / 8
    kernel = torch.outer(taps, taps).expand(x.shape[1], 1, 4, 4)
    return F.conv2d(x, kernel, stride=stride, padding=padding, groups=x.shape[1])


class _Mapping(nn.Module):
    def __init__(self, noise: int, width: int, layers: int) -> None:
        super().__init__()
        self.first, self.second = _Scaled(noise, width), _Scaled(width, width)
        self.layers = layers

    def forward(self, z: Tensor, c: Tensor, skip_w_avg_update: bool = False) -> Tensor:
        """[B, layers, width]; no average of them is kept, whatever is asked."""
        x = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        x = _activated(self.second(_activated(self.first(x))))
        return x.unsqueeze(1).expand(-1, self.layers, -1)


class _Modulated(nn.Module):
    """A convolution whose input channels a style weighs, and whose output has unit variance again;
    noise of its own strength is added to each pixel."""

    def __init__(self, styles: int, before: int, after: int) -> None:
        super().__init__()
        self.style = _Scaled(styles, before, bias=1.0)
        self.weight = nn.Parameter(torch.randn(after, before, 3, 3))
        self.strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(after))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        style = self.style(w)
        energy = self.weight.square().sum((2, 3))  # [after, before]
        scale = (style.square() @ energy.t() + 1e-8).rsqrt()
        x = F.conv2d(x * style[:, :, None, None], self.weight, padding=1)
        noise = torch.randn(len(x), 1, *x.shape[2:], device=x.device) * self.strength
        return _activated(x * scale[:, :, None, None] + noise + self.bias[:, None, None])


class _ToImage(nn.Module):
    """The colours of a block: modulated as well, but as they come."""

    def __init__(self, styles: int, before: int) -> None:
        super().__init__()
        self.style = _Scaled(styles, before, bias=1.0)
        self.convolution = _Scaled(before, 3, 1)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        found: Tensor = self.convolution(x * self.style(w)[:, :, None, None])
        return found


class _Synthesis(nn.Module):
    """From a constant of 4x4 on, doubled at every stage; what the stages paint is added up."""

    def __init__(self, styles: int, width: int, stages: int) -> None:
        super().__init__()
        self.constant = nn.Parameter(torch.randn(1, width, 4, 4))
        self.layers = nn.ModuleList(_Modulated(styles, width, width) for _ in range(2 * stages + 1))
        self.colours = nn.ModuleList(_ToImage(styles, width) for _ in range(stages + 1))

    def forward(self, ws: Tensor) -> Tensor:
        x = self.layers[0](self.constant.expand(len(ws), -1, -1, -1), ws[:, 0])
        image: Tensor = self.colours[0](x, ws[:, 1])
        for stage, colours in enumerate(self.colours[1:]):
            x = F.interpolate(x, scale_factor=2, mode="bilinear")
            for k in (2 * stage + 1, 2 * stage + 2):
                x = self.layers[k](x, ws[:, k])
            painted = colours(x, ws[:, 2 * stage + 3])
            image = F.interpolate(image, scale_factor=2, mode="bilinear") + painted
        return image


class _Generator(nn.Module):
    def __init__(self, noise: int, width: int, stages: int) -> None:
        super().__init__()
        self.mapping: _Mapping = _Mapping(noise, width, 2 * stages + 2)
        self.synthesis: _Synthesis = _Synthesis(width, width, stages)


class _Residual(nn.Module):
    """Two convolutions, the second of which halves what it sees, beside a skip that does."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _Scaled(width, width, 3), _Scaled(width, width, 3, stride=2)
        self.skip = _Scaled(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        inner = _filtered(_activated(self.first(x)), stride=1, padding=2)
        through = _activated(self.second(inner))
        found: Tensor = (through + self.skip(_filtered(x, stride=2, padding=1))) * math.sqrt(0.5)
        return found


def _with_deviation(x: Tensor, group: int = 4) -> Tensor:
    """One map more: how far the samples of a group lie apart."""
    groups = x.unflatten(0, (min(group, len(x)), -1))  # [group, B / group, C, H, W]
    deviation = (groups.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
    of_all = deviation.repeat(len(groups)).view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])
    return torch.cat([x, of_all], dim=1)


class _Critic(nn.Module):
    def __init__(self, width: int, stages: int) -> None:
        super().__init__()
        self.colours = _Scaled(3, width, 1)
        self.blocks = nn.Sequential(*(_Residual(width) for _ in range(stages)))
        self.convolution = _Scaled(width + 1, width, 3)
        self.linear, self.last = _Scaled(16 * width, width), _Scaled(width, 1)

    def forward(self, images: Tensor, c: Tensor) -> Tensor:
        x: Tensor = self.blocks(_activated(self.colours(images)))
        x = _activated(self.convolution(_with_deviation(x)))
        found: Tensor = self.last(_activated(self.linear(x.flatten(1))))
        return found


# ---- its losses as written ---------------------------------------------------------------------


class _WrittenLoss:
    """The losses of the four phases, each with a backward of its own; the main one of the
    discriminator has two."""

    def __init__(self, generator: _Generator, discriminator: nn.Module) -> None:
        self.generator, self.discriminator = generator, discriminator
        self.mean_length = torch.zeros([], device=generator.synthesis.constant.device)

    def accumulate_gradients(
        self, phase: str, real: Tensor, c: Tensor, z: Tensor, of_z: Tensor, sync: bool, gain: float
    ) -> None:
        if phase == "Gmain":
            self.deceive(c, z, gain)
        elif phase == "Greg":
            self.keep_path_lengths(c, z, gain)
        elif phase == "Dmain":
            self.tell_apart(real, c, z, gain)
        else:
            self.penalise(real, c, gain)

    def images(self, z: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        ws = self.generator.mapping(z, c)
        layers = ws.shape[1]
        cutoff = torch.empty([], dtype=torch.int64, device=z.device).random_(1, layers)
        is_mixed = torch.rand([], device=z.device) < MIXING
        cutoff = torch.where(is_mixed, cutoff, torch.full_like(cutoff, layers))
        others = self.generator.mapping(torch.randn_like(z), c, skip_w_avg_update=True)
        ws = torch.cat([ws[:, :cutoff], others[:, cutoff:]], dim=1)
        return self.generator.synthesis(ws), ws

    def deceive(self, c: Tensor, z: Tensor, gain: float) -> None:
        images, _ = self.images(z, c)
        F.softplus(-self.discriminator(images, c)).mean().mul(gain).backward()

    def keep_path_lengths(self, c: Tensor, z: Tensor, gain: float) -> None:
        batch = len(z) // PL_SHRINK
        images, ws = self.images(z[:batch], c[:batch])
        noise = torch.randn_like(images) / math.sqrt(images.shape[2] * images.shape[3])
        (gradient,) = torch.autograd.grad((images * noise).sum(), ws, create_graph=True)
        lengths = gradient.square().sum(2).mean(1).sqrt()
        mean = self.mean_length.lerp(lengths.mean(), PL_DECAY)
        self.mean_length.copy_(mean.detach())
        penalty = (lengths - mean).square() * PL_WEIGHT
        (images[:, 0, 0, 0] * 0 + penalty).mean().mul(gain).backward()

    def tell_apart(self, real: Tensor, c: Tensor, z: Tensor, gain: float) -> None:
        images, _ = self.images(z, c)
        F.softplus(self.discriminator(images, c)).mean().mul(gain).backward()
        logits = self.discriminator(real.detach(), c)
        F.softplus(-logits).mean().mul(gain).backward()

    def penalise(self, real: Tensor, c: Tensor, gain: float) -> None:
        images = real.detach().requires_grad_(True)
        logits = self.discriminator(images, c)
        (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        penalty = gradient.square().sum((1, 2, 3)) * (R1_GAMMA / 2)
        (logits * 0 + penalty).mean().mul(gain).backward()


# ---- its step ----------------------------------------------------------------------------------


def stylegan2_ada_step(
    device: torch.device,
    phases: Sequence[str] = tuple(INTERVALS),
    stages: int = 3,
    width: int = 32,
    batch: int = 8,
) -> dict[str, Form]:
    """The phases of one iteration, with latents for each: by default of that one in sixteen in
    which both sides are regularised as well. The side whose turn it is not rests, so that nothing
    is computed for nobody."""
    noise = 64

    def step(t: Training, losses_of: Callable[[_Generator, nn.Module], Accumulate]) -> list[Tensor]:
        assert isinstance(t.generator, _Generator)
        accumulate = losses_of(t.generator, t.discriminator)
        real, labels = t.batch["real"], t.batch["labels"]
        latents = torch.randn(len(phases), batch, noise, device=real.device)
        sides = {"G": (t.generator, t.of_generator), "D": (t.discriminator, t.of_discriminator)}
        for side, _ in sides.values():
            side.requires_grad_(False)
        found = []
        for phase, z in zip(phases, latents):
            side, optimizer = sides[phase[0]]
            optimizer.zero_grad(set_to_none=True)
            side.requires_grad_(True)
            accumulate(phase, real, labels, z, labels, True, INTERVALS[phase])
            side.requires_grad_(False)
            for parameter in side.parameters():
                if parameter.grad is not None:
                    parameter.grad.nan_to_num_(nan=0, posinf=1e5, neginf=-1e5)
            found.append(moved(optimizer, side))
        return found

    def written(generator: _Generator, discriminator: nn.Module) -> Accumulate:
        return _WrittenLoss(generator, discriminator).accumulate_gradients

    def drop_in(generator: _Generator, discriminator: nn.Module) -> Accumulate:
        loss = StyleGAN2Loss(
            generator.synthesis.constant.device,
            generator.mapping,
            generator.synthesis,
            discriminator,
            style_mixing_prob=MIXING,
            r1_gamma=R1_GAMMA,
            pl_batch_shrink=PL_SHRINK,
            pl_decay=PL_DECAY,
            pl_weight=PL_WEIGHT,
        )
        return loss.accumulate_gradients

    size = 4 << stages
    tensors = {"real": torch.randn(batch, 3, size, size), "labels": torch.zeros(batch, 0)}
    networks = _Generator(noise, width, stages), _Critic(width, stages)
    return forms(
        Training(*networks, tensors),
        device,
        lambda t: step(t, written),
        lambda t: step(t, drop_in),
    )
