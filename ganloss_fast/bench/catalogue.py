"""All workloads of the package, and the choice among them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

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

    def __init__(self, asked: str, names: Sequence[str]) -> None:
        close = difflib.get_close_matches(asked, names, n=3, cutoff=0.0)
        super().__init__(
            f"--only: nothing of {len(names)} has {asked!r} in its name; closest: "
            f"{'; '.join(close)}"
        )


class NothingQuick(ValueError):
    """None of the workloads that are asked for is small enough for --quick."""


class Named(Protocol):
    @property
    def name(self) -> str: ...


One = TypeVar("One", bound=Named)


def having(
    asked: Sequence[str], there: Sequence[One], texts: Callable[[One], Sequence[str]]
) -> list[One]:
    """Those of which one of the texts holds something that is asked for, in any case; all where
    nothing is.

    Raises:
        NothingChosen: if something that is asked for is nowhere.
    """

    def has(each: One, text: str) -> bool:
        return any(text.lower() in line.lower() for line in texts(each))

    for text in asked:
        if not any(has(each, text) for each in there):
            raise NothingChosen(text, [each.name for each in there])
    return [each for each in there if not asked or any(has(each, text) for text in asked)]


def choose(workloads: Sequence[Workload], only: Sequence[str], quick: bool) -> list[Workload]:
    """Those with any of the texts in their name or section, and of them the quick ones.

    Raises:
        NothingChosen: if there is none with one of the texts.
        NothingQuick: if there is none among the quick ones.
    """
    asked = having(only, workloads, lambda each: (each.name, each.section))
    if not quick:
        return asked
    quickly = [each for each in asked if each.quick]
    if not quickly:
        raise NothingQuick(f"--quick: {asked[0].name}, and all else of that name, takes too long")
    return quickly
