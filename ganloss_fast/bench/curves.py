"""How time grows: with the length of a list of outputs, and with the number of logits."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ganloss_fast.bench import plain
from ganloss_fast.bench.workload import (
    COMPILE,
    LOSS_PASSES,
    Contender,
    Curve,
    Workload,
    contenders,
    sizes,
)
from ganloss_fast.losses.adversarial import discriminator_loss

SECTION = "curves"
LENGTHS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
LOGITS = (64, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)
OF_EACH = 1024  # logits of one output of a list
LONGEST_COMPILED = 64  # one of 512 takes minutes to compile
QUICK = (1, 16, 128, 64, 10_000)


def _build(shape: tuple[int, ...], count: int) -> Callable[[torch.device], dict[str, Contender]]:
    def build(device: torch.device) -> dict[str, Contender]:
        real, fake = (
            [torch.randn(shape, device=device, requires_grad=True) for _ in range(count)]
            for _ in range(2)
        )
        found = contenders(
            [real, fake],
            ours=lambda real, fake: discriminator_loss(real, fake, "least_squares"),
            eager=plain.list_discriminator_loss,
        )
        if count > LONGEST_COMPILED:
            del found[COMPILE]
        return found

    return build


def _point(name: str, curve: Curve, size: int, count: int) -> Workload:
    shape = (size,)
    return Workload(
        name,
        SECTION,
        _build(shape, count),
        shapes=f"{count} of {size}, each side" if count > 1 else sizes([shape, shape]),
        bytes=LOSS_PASSES * 2 * 4 * size * count,
        source="jik876/hifi-gan",
        quick=curve.at in QUICK,
        curve=curve,
    )


WORKLOADS = (
    *(
        _point(f"list of {n}", Curve("length of a list", "outputs of 1024 logits", n), OF_EACH, n)
        for n in LENGTHS
    ),
    *(
        _point(f"{n} logits in one", Curve("number of logits", "logits of one output", n), n, 1)
        for n in LOGITS
    ),
)
