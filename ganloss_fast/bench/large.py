"""What grows: resolution, batches at 1024x1024 with and without ``chunk_size``, and a tensor of
more than 2^31 elements.

The critic is a narrow stand-in. Its peak memory and its arithmetic grow with its width, so that
what carries over to other critics is how they grow with resolution, batch and chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ganloss_fast.bench import plain
from ganloss_fast.bench.workload import (
    EAGER,
    OURS,
    Contender,
    Curve,
    Workload,
    differentiated,
    sizes,
)
from ganloss_fast.losses.adversarial import generator_loss
from ganloss_fast.penalties.critic.call import Differentiation
from ganloss_fast.penalties.gradient_penalty import r1_penalty
from ganloss_fast.penalties.table import R1

SECTION = "high resolution: R1 and its backward"
CHUNKED = f"{OURS}, chunk_size=1"
RESOLUTIONS = (64, 128, 256, 512, 1024)
BATCHES = (1, 2, 4, 8, 16, 32, 64)  # of 64x64
LARGE_BATCHES = (1, 2, 4, 8)  # of 1024x1024
WIDTH, WIDEST = 4, 64
CALLS_BEFORE = 17  # the next to ask are 32 and 64


def critic(size: int, width: int = WIDTH) -> nn.Sequential:
    """Halves images [B, 3, size, size] down to 4x4, and gives logits [B, 1]."""
    layers: list[nn.Module] = []
    before, after = 3, width
    while size > 4:
        layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        before, after, size = after, min(2 * after, WIDEST), size // 2
    return nn.Sequential(*layers, nn.Conv2d(before, 1, 4), nn.Flatten())


def _r1_as_written(critic: nn.Module, real: Tensor) -> Tensor:
    real = real.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(real).sum(), real, create_graph=True)
    return plain.squared_norm(gradient)


def _r1(chunk_size: int | None) -> Callable[[nn.Module, Tensor], Tensor]:
    how = Differentiation(chunk_size=chunk_size)
    return lambda critic, real: r1_penalty(critic, real, R1(gamma=2.0), how=how)


def _penalties(
    batch: int, size: int, penalties: dict[str, Callable[[nn.Module, Tensor], Tensor]]
) -> Callable[[torch.device], dict[str, Contender]]:
    def build(device: torch.device) -> dict[str, Contender]:
        network = critic(size).to(device)
        real = torch.randn(batch, 3, size, size, device=device)

        def contender(penalty: Callable[[nn.Module, Tensor], Tensor]) -> Contender:
            def work() -> Sequence[Tensor]:
                network.zero_grad()
                value = penalty(network, real)
                value.backward()
                found = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
                return [value.detach(), torch.cat(found)]

            return work

        found = {name: contender(penalty) for name, penalty in penalties.items()}
        if CHUNKED in found and batch > 1:
            _ask_beforehand(network, penalties[CHUNKED], real[:2])
        return found

    return build


def _ask_beforehand(
    critic: nn.Module, chunked: Callable[[nn.Module, Tensor], Tensor], real: Tensor
) -> None:
    """A penalty in chunks asks in calls 1, 2, 4, 8, ... whether samples interact; within a training
    that is next to never, and so it is within the rounds that are timed."""
    for _ in range(CALLS_BEFORE):
        chunked(critic, real)


def _workload(name: str, batch: int, size: int, curve: Curve, chunked: bool = False) -> Workload:
    penalties = {OURS: _r1(None), EAGER: _r1_as_written}
    if chunked:
        penalties[CHUNKED] = _r1(1)
    return Workload(
        name,
        SECTION,
        _penalties(batch, size, penalties),
        shapes=sizes([(batch, 3, size, size)]),
        direction="penalty step",
        source="stylegan3" if size == 1024 else "",
        quick=batch * size * size <= 2 * 64 * 64,
        curve=curve,
    )


# ---- more elements than an int counts ----------------------------------------------------------

MANY = 2**31 + 4099
GENERATOR = "least_squares"


def _many(device: torch.device) -> dict[str, Contender]:
    """The logits are alike but for the last; of the gradient the end is compared."""
    logits = torch.full((MANY,), 0.25, dtype=torch.bfloat16, device=device)
    logits[-1] = 1000.0
    logits.requires_grad_()

    def ends(work: Contender) -> Contender:
        def both() -> Sequence[Tensor]:
            value, gradient = work()
            return [value, gradient[-4099:].clone()]

        return both

    def ours(fake: Tensor) -> Tensor:
        return generator_loss(fake, GENERATOR)

    written = {OURS: ours, EAGER: plain.GENERATOR_LOSSES[GENERATOR]}
    return {name: ends(differentiated(loss, [logits])) for name, loss in written.items()}


IMAGE = "pixels of a side, one image"
WORKLOADS = (
    *(
        _workload(f"R1, {side}x{side}, one image", 1, side, Curve("resolution", IMAGE, side))
        for side in RESOLUTIONS
    ),
    *(_workload(f"R1, {n} of 64x64", n, 64, Curve("batch", "images of 64x64", n)) for n in BATCHES),
    *(
        _workload(
            f"R1, {n} of 1024x1024, in chunks too",
            n,
            1024,
            Curve("batch at 1024x1024", "images of 1024x1024", n),
            chunked=True,
        )
        for n in LARGE_BATCHES
    ),
    Workload(
        "2^31 + 4099 logits: generator loss",
        "more than 2^31 elements",
        _many,
        shapes=f"{MANY}",
        dtype="bfloat16",
        bytes=2 * 2 * MANY,
        tolerance=1e-2,
        # bytes: the logits and their gradient; as written, six more of that size at once
        needs={OURS: 5 * MANY, EAGER: 13 * MANY},
    ),
)
