"""All workloads of the package, and the choice among them."""

from __future__ import annotations

from collections.abc import Sequence

from ganloss_fast.bench import curves, large, losses, real
from ganloss_fast.bench.steps import catalogue as steps
from ganloss_fast.bench.workload import Workload

WORKLOADS: tuple[Workload, ...] = (
    *losses.WORKLOADS,
    *real.WORKLOADS,
    *steps.WORKLOADS,
    *large.WORKLOADS,
    *curves.WORKLOADS,
)


class NothingChosen(ValueError):
    """No workload has the text in its name; the message names them all."""


def choose(workloads: Sequence[Workload], only: Sequence[str], quick: bool) -> list[Workload]:
    """Those with any of the texts in their name or section, and of them the quick ones.

    Raises:
        NothingChosen: if there is none.
    """
    asked = [
        each
        for each in workloads
        if not only or any(text in each.name or text in each.section for text in only)
    ]
    if not asked:
        wanted = " or ".join(map(repr, only))
        names = "\n  ".join(each.name for each in workloads)
        raise NothingChosen(f"--only: nothing has {wanted} in its name; there are\n  {names}")
    quickly = [each for each in asked if each.quick]
    if not quick:
        return asked
    if not quickly:
        names = ", ".join(each.name for each in asked)
        raise NothingChosen(f"--quick: none of these is small enough for it: {names}")
    return quickly
