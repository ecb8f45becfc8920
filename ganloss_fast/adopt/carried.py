"""Comments and empty lines around what goes: they are carried on to what stays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import libcst as cst

from ganloss_fast.adopt.syntax import comments

Lines = Sequence[cst.EmptyLine]


def lost(
    statements: Sequence[tuple[Lines, cst.CSTNode]], old: cst.CSTNode, new: cst.CSTNode
) -> list[cst.EmptyLine]:
    """Of statements that go, the lines above them and the comments in them and in ``old``, as far
    as they are not in ``new``."""
    kept = Counter(comments([new]))

    def is_lost(comment: str) -> bool:
        kept[comment] -= 1
        return kept[comment] < 0

    found: list[cst.EmptyLine] = []
    for above, statement in statements:
        within = comments([without_lines_above(statement)])
        found = joined(found, [a for a in above if a.comment is None or is_lost(a.comment.value)])
        found += _as_lines(filter(is_lost, within))
    return [*found, *_as_lines(filter(is_lost, comments([old])))]


def joined(above: Lines, below: Lines) -> list[cst.EmptyLine]:
    """Lines one after the other, where they meet with as many empty ones as one of them has."""
    empty = 0
    while empty < min(len(above), len(below)) and not (
        above[len(above) - 1 - empty].comment or below[empty].comment
    ):
        empty += 1
    return [*above, *below[empty:]]


def lines_above(node: cst.CSTNode) -> tuple[Lines, Lines]:
    """The empty lines above a statement and its comments, and those from its comments on."""
    lines: Lines = getattr(node, "leading_lines", ())
    first = next((k for k, line in enumerate(lines) if line.comment), len(lines))
    return lines[:first], lines[first:]


def without_lines_above(node: cst.CSTNode) -> cst.CSTNode:
    return node.with_changes(leading_lines=[]) if hasattr(node, "leading_lines") else node


def _as_lines(found: Iterable[str]) -> list[cst.EmptyLine]:
    return [cst.EmptyLine(comment=cst.Comment(comment)) for comment in found]
