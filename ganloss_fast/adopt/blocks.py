"""The statements of a block: what they assign, what stands above and below."""

from __future__ import annotations

import re
from collections.abc import Sequence

import libcst as cst

from ganloss_fast.adopt.names import code

_OF_GENERATOR = r"\b(\w*opt\w*_?g\w*|g\w*_?opt\w*|(net_?)?g(en\w*)?)"
_ZEROED = re.compile(_OF_GENERATOR + r"\.zero_grad\(", re.I)
_STEPPED = re.compile(_OF_GENERATOR + r"\.step\(", re.I)


class Nodes(cst.CSTVisitor):
    """Everything below a node."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[cst.CSTNode] = set()

    def on_visit(self, node: cst.CSTNode) -> bool:
        self.found.add(node)
        return True


class Reads(cst.CSTVisitor):
    """How often some names stand in an expression."""

    def __init__(self, names: set[str]) -> None:
        super().__init__()
        self._names = names
        self.count = 0

    def visit_Name(self, node: cst.Name) -> None:
        self.count += node.value in self._names


def assigned_above(
    body: Sequence[cst.CSTNode], k: int, name: str
) -> tuple[int, cst.BaseExpression | None]:
    """Where and what a name was assigned last, above a statement of the same block."""
    for j in range(k - 1, -1, -1):
        if name in targets(body[j]):
            return j, value_of(body[j])
    return k, None


def zeroed_after(body: Sequence[cst.CSTNode], k: int) -> bool:
    """Whether the generator's gradients are zeroed between this statement and its own step."""
    texts = [code(statement) for statement in body]
    zeroed = [j for j, text in enumerate(texts) if _ZEROED.search(text)]
    stepped = [j for j, text in enumerate(texts) if _STEPPED.search(text)]
    before = all(any(z < step for z in zeroed) for step in stepped if step < k)
    after = [step for step in stepped if step > k]
    return (
        bool(zeroed)
        and before
        and (all(any(k < z < step for z in zeroed) for step in after) if after else bool(stepped))
    )


def _small(statement: cst.CSTNode) -> cst.CSTNode | None:
    if isinstance(statement, cst.SimpleStatementLine) and len(statement.body) == 1:
        return statement.body[0]
    return None


def value_of(statement: cst.CSTNode) -> cst.BaseExpression | None:
    """What a statement computes, if it assigns or returns it."""
    small = _small(statement)
    if isinstance(small, (cst.Assign, cst.Return, cst.AugAssign)):
        return small.value
    return None


def targets(statement: cst.CSTNode) -> list[str]:
    """The plain names that a statement assigns."""
    small = _small(statement)
    if not isinstance(small, cst.Assign) or len(small.targets) != 1:
        return []
    target = small.targets[0].target
    if isinstance(target, cst.Tuple):
        return [code(element.value) for element in target.elements]
    return [target.value] if isinstance(target, cst.Name) else []
