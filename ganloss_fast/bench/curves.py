"""How time grows: with the length of a list of outputs, with the number of logits, with threads."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

from ganloss_fast.bench import plain
from ganloss_fast.bench.workload import (
    COMPILE,
    EAGER,
    LOSS_PASSES,
    OURS,
    REFERENCE,
    Contender,
    Curve,
    Workload,
    contenders,
    sizes,
)
from ganloss_fast.losses.adversarial import discriminator_loss

SECTION = "curves"
LENGTHS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
LOGITS = (64, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
OF_EACH = 1024  # logits of one output of a list
LONGEST_COMPILED = 64  # one of 512 takes minutes to compile
LARGE = 10_000_000  # from here on only the reference is left out, and memory is asked for
MOST_THREADS = os.cpu_count() or 1
THREADS = tuple(2**k for k in range(MOST_THREADS.bit_length()) if 2**k <= MOST_THREADS)
THREADS_CURVE = "threads"
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
        if shape[0] > LARGE:
            del found[REFERENCE]
        return found

    return build


def _needs(elements: int) -> dict[str, int]:
    """Bytes: both sides and their gradients; and as written what autograd keeps besides."""
    if elements <= LARGE:
        return {}
    return {OURS: 5 * 4 * elements, EAGER: 10 * 4 * elements, COMPILE: 10 * 4 * elements}


def _point(name: str, curve: Curve, size: int, count: int, threads: int | None = None) -> Workload:
    shape = (size,)
    return Workload(
        name,
        SECTION,
        _build(shape, count),
        shapes=f"{count} of {size}, each side" if count > 1 else sizes([shape, shape]),
        bytes=LOSS_PASSES * 2 * 4 * size * count,
        source="jik876/hifi-gan",
        quick=curve.at in QUICK and threads is None,
        curve=curve,
        needs=_needs(size),
        threads=threads,
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
    *(
        _point(
            f"10000000 logits on {n} thread{'s' if n > 1 else ''}",
            Curve(THREADS_CURVE, "threads, for 10000000 logits", n),
            10_000_000,
            1,
            threads=n,
        )
        for n in THREADS
    ),
)
