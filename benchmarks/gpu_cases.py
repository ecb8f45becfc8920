"""What is measured on a GPU: every op in every direction, at sizes of training steps and more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import ganloss_fast
from ganloss_fast import ops
from ganloss_fast.bench import plain
from ganloss_fast.bench.timing import Work
from ganloss_fast.ops import terms
from ganloss_fast.ops.terms import Segment

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}
FORWARD, BACKWARD, SECOND_ORDER = "forward", "forward + backward", "up to second order"

Wrap = Callable[[Work], Work]


@dataclass(frozen=True)
class Case:
    """One op and direction at one size. ``build`` draws the inputs and returns the work, ours or
    as people write it; it gives the forward pass to ``wrap`` first: to torch.compile, or to
    nobody.

    ``bytes_moved`` is the least that any implementation must read and write.
    """

    op: str
    direction: str
    size: str
    dtype: str
    bytes_moved: int
    build: Callable[[torch.device, Wrap, bool], Work]


# HiFi-GAN's eight discriminators and their feature maps for 8192 samples, without the batch:
# of the multi-period ones (channels, time) for each period, of the multi-scale ones alike.
HIFIGAN_LOGITS = [(1, 380), (1, 254), (1, 152), (1, 109), (1, 69), (1, 128), (1, 65), (1, 33)]
HIFIGAN_MAPS = [
    *[(c, 8192 // 3**k) for _ in range(5) for k, c in enumerate((32, 128, 512, 1024, 1024), 1)],
    *[
        (c, 8192 >> k)
        for _ in range(3)
        for k, c in enumerate((128, 128, 256, 512, 1024, 1024, 1024))
    ],
]


def _batch(size: int, shapes: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    return [(size, *shape) for shape in shapes]


# name of the loss: what it is measured on, the most telling first
LOSS_SHAPES: dict[str, dict[str, list[tuple[int, ...]]]] = {
    "hinge": {"64 logits": [(64, 1)], "100M logits": [(100_000_000,)]},
    "least_squares": {"HiFi-GAN's 8 outputs, batch 16": _batch(16, HIFIGAN_LOGITS)},
    "abs pairs": {
        "HiFi-GAN's 46 maps, batch 1": _batch(1, HIFIGAN_MAPS),
        "HiFi-GAN's 46 maps, batch 16": _batch(16, HIFIGAN_MAPS),
    },
    "bce": {
        "16x1x62x62": [(16, 1, 62, 62)],
        "3 maps, 32 images": [(32, 1, 126, 126), (32, 1, 62, 62), (32, 1, 30, 30)],
        "16M logits": [(1 << 24,)],
    },
}
PENALTY_SHAPES = {
    "64x3x64x64": (64, 3, 64, 64),
    "16x3x1024x1024": (16, 3, 1024, 1024),
    "65536x2": (65536, 2),
}
TINY = {name: {"tiny": [(8, 1), (3, 5)]} for name in ("hinge", "abs pairs")}
TINY_PENALTY = {"tiny": (4, 3, 5)}


def _elements(shapes: list[tuple[int, ...]]) -> int:
    return sum(torch.Size(shape).numel() for shape in shapes)


def _draw(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.randn(shape, device=device, dtype=torch.float32).to(dtype).requires_grad_()


def _differentiated(forward: Callable[[], Tensor], leaves: list[Tensor], direction: str) -> Work:
    """The forward pass, and as many derivatives as the direction says."""
    if direction == FORWARD:
        return torch.no_grad()(forward)
    if direction == BACKWARD:
        return lambda: torch.autograd.grad(forward(), leaves)
    directions = [torch.randn_like(leaf) for leaf in leaves]

    def twice() -> object:
        first = torch.autograd.grad(forward(), leaves, create_graph=True)
        return torch.autograd.grad(first, leaves, directions, allow_unused=True)

    return twice


def _loss(name: str, real: list[Tensor], fake: list[Tensor], ours: bool) -> Tensor:
    if name == "abs pairs":
        if not ours:
            return plain.feature_loss(real, fake)
        pairs = [Segment(f, terms.ABSOLUTE, 2.0, r) for r, f in zip(real, fake)]
        return ops.multi_tensor_loss(pairs).total
    if ours:
        return ganloss_fast.discriminator_loss(real, fake, name)
    losses = [plain.DISCRIMINATOR_LOSSES[name](r, f) for r, f in zip(real, fake)]
    return sum(losses[1:], losses[0])


def loss_case(name: str, size: str, shapes: list, dtype: str, direction: str) -> Case:
    """A discriminator loss, or the feature matching of pairs, over a list."""
    n, width = _elements(shapes), DTYPES[dtype].itemsize
    # Real and fake are read; read again, and gradients written; read again with directions, and
    # their gradients written.
    passes = {FORWARD: 1, BACKWARD: 3, SECOND_ORDER: 6}[direction]
    moved = 2 * n * width * passes

    def build(device: torch.device, wrap: Wrap, ours: bool) -> Work:
        real = [_draw(shape, DTYPES[dtype], device) for shape in shapes]
        fake = [_draw(shape, DTYPES[dtype], device) for shape in shapes]
        forward = wrap(lambda: _loss(name, real, fake, ours))
        return _differentiated(forward, [*real, *fake], direction)

    return Case(name, direction, size, dtype, moved, build)


def penalty_case(size: str, shape: tuple[int, ...], dtype: str, direction: str) -> Case:
    n, width = torch.Size(shape).numel(), DTYPES[dtype].itemsize
    # The second order needs <gradient, direction> before it can begin.
    passes = {FORWARD: 1, BACKWARD: 3, SECOND_ORDER: 8}[direction]
    moved = n * width * passes

    def build(device: torch.device, wrap: Wrap, ours: bool) -> Work:
        gradient = _draw(shape, DTYPES[dtype], device)

        def forward() -> Tensor:
            if ours:
                return ops.norm_penalty(gradient, "two_sided", 1.0, 10.0)[0]
            return 10.0 * plain.penalty(gradient)

        return _differentiated(wrap(forward), [gradient], direction)

    return Case("norm_penalty", direction, size, dtype, moved, build)


def interpolate_case(size: str, shape: tuple[int, ...], dtype: str) -> Case:
    moved = 3 * torch.Size(shape).numel() * DTYPES[dtype].itemsize

    def build(device: torch.device, wrap: Wrap, ours: bool) -> Work:
        real, fake = (_draw(shape, DTYPES[dtype], device).detach() for _ in range(2))
        alpha = torch.rand(shape[0], device=device)
        if ours:
            return wrap(lambda: ops.interpolate(real, fake, alpha))
        spread = alpha.view(-1, *[1] * (len(shape) - 1)).to(real.dtype)
        return wrap(lambda: plain.interpolate(real, fake, spread))

    return Case("interpolate", FORWARD, size, dtype, moved, build)


def perturb_case(size: str, shape: tuple[int, ...], dtype: str) -> Case:
    moved = 2 * torch.Size(shape).numel() * DTYPES[dtype].itemsize

    def build(device: torch.device, wrap: Wrap, ours: bool) -> Work:
        inputs, seed = _draw(shape, DTYPES[dtype], device).detach(), torch.tensor(7, device=device)
        if ours:
            return wrap(lambda: ops.perturb(inputs, 0.01, seed))
        return wrap(lambda: inputs + 0.01 * torch.randn_like(inputs))

    return Case("perturb", FORWARD, size, dtype, moved, build)


def cases(dry_run: bool) -> list[Case]:
    """Training steps in the two usual precisions first, then the rest."""
    losses, batches = (TINY, TINY_PENALTY) if dry_run else (LOSS_SHAPES, PENALTY_SHAPES)
    found = []
    for dtypes, directions in (
        (("float32", "bfloat16"), (BACKWARD, FORWARD)),
        (("float32",), (SECOND_ORDER,)),
        (("float16", "float64"), (BACKWARD,)),
    ):
        for dtype in dtypes[: 1 if dry_run else None]:
            for direction in directions:
                for loss, shapes in losses.items():
                    for size, listed in shapes.items():
                        found.append(loss_case(loss, size, listed, dtype, direction))
                for size, shape in batches.items():
                    found.append(penalty_case(size, shape, dtype, direction))
            if FORWARD in directions:
                found += [interpolate_case(size, shape, dtype) for size, shape in batches.items()]
                found += [perturb_case(size, shape, dtype) for size, shape in batches.items()]
    return found
