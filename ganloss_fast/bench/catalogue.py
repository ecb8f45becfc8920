"""All workloads of the package, and the choice among them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from ganloss_fast.bench import curves, large, losses, real
from ganloss_fast.bench.steps import catalogue as steps
from ganloss_fast.bench.workload import Workload

WORKLOADS: tuple[Workload, ...] = (
    *losses.WORKLOADS,
    *real.WORKLOADS,
    *steps.WORKLOADS,
    *curves.WORKLOADS,
    *large.WORKLOADS,
)


class NothingChosen(ValueError):
    """Nothing has the text in its name; the message is one line, and names what is close."""

    def __init__(self, asked: Sequence[str], names: Sequence[str]) -> None:
        wanted = " or ".join(map(repr, asked))
        close = difflib.get_close_matches(asked[0], names, n=3, cutoff=0.0)
        super().__init__(
            f"--only: nothing of {len(names)} has {wanted} in its name; closest: {'; '.join(close)}"
        )


class NothingQuick(ValueError):
    """None of the workloads that are asked for is small enough for --quick."""


def choose(workloads: Sequence[Workload], only: Sequence[str], quick: bool) -> list[Workload]:
    """Those with any of the texts in their name or section, and of them the quick ones.

    Raises:
        NothingChosen: if there is none.
        NothingQuick: if there is none among the quick ones.
    """
    asked = [
        each
        for each in workloads
        if not only or any(text in each.name or text in each.section for text in only)
    ]
    if not asked:
        raise NothingChosen(only, [each.name for each in workloads])
    if not quick:
        return asked
    quickly = [each for each in asked if each.quick]
    if not quickly:
        raise NothingQuick(f"--quick: {asked[0].name}, and all else of that name, takes too long")
    return quickly
