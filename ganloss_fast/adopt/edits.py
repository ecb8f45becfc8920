"""What is changed in a script and what is left alone, and the comments that edits carry on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import libcst as cst
from libcst import matchers as m

from ganloss_fast.adopt.carried import Lines, joined, lines_above, lost, without_lines_above
from ganloss_fast.adopt.names import Facts
from ganloss_fast.adopt.syntax import OURS, code
from ganloss_fast.adopt.terms import NotUnderstood

Replacement = cst.CSTNode | cst.FlattenSentinel[cst.SimpleStatementLine]

_DIRECTIVE = re.compile(
    r"#\s*(noqa|type:|pylint|fmt:|pragma|ruff|mypy|pyright|pyre-|pytype|flake8|isort|yapf|autopep8"
    r"|nosec|noinspection)",
    re.I,
)

GAINS = {
    "loss": "both sides of the loss in one kernel, with their gradients; a smaller part of a step",
    "side": "one kernel each way; a call with both sides would be one for both",
    "penalty": "the penalty's backward without the branch that only carries zeros: up to a third "
    "of its arithmetic, exactly the same gradients",
    "features": "one kernel for all maps instead of several for each",
    "detach": "the critic's backward ends at the fake instead of walking through the generator, "
    "whose gradients are zeroed before they are read",
    "drop-in": "the same names, values and gradients from the drop-in module",
}


@dataclass(frozen=True)
class Remark:
    """What is said about a line."""

    line: int
    text: str


class Edits:
    """Of one script, under the name ``ours`` of the package."""

    def __init__(self, facts: Facts, ours: str) -> None:
        self._facts, self._ours = facts, ours
        self.new: dict[cst.CSTNode, Replacement] = {}  # in place of a node
        self.gone: set[cst.CSTNode] = set()
        self.above: dict[cst.CSTNode, list[cst.EmptyLine]] = {}  # lines above a statement
        self.needs_import = False
        self._changes: dict[cst.CSTNode, Remark] = {}
        self._left: dict[Remark, None] = {}
        self.spoken_of: set[cst.CSTNode] = set()
        self.compiled: set[cst.CSTNode] = set()  # functions and classes that a compiler reads

    @property
    def changes(self) -> list[Remark]:
        return sorted(self._changes.values(), key=lambda remark: remark.line)

    @property
    def left_alone(self) -> list[Remark]:
        return sorted(self._left, key=lambda remark: remark.line)

    def line(self, node: cst.CSTNode) -> int:
        return self._facts.positions[node].start.line

    def leave(self, node: cst.CSTNode, why: object) -> None:
        self.spoken_of.add(node)
        self.leave_line(self.line(node), str(why))

    def leave_line(self, line: int, why: str) -> None:
        self._left[Remark(line, why)] = None

    def change(self, node: cst.CSTNode, new: Replacement, gain: str) -> None:
        self.new[node] = new
        self.explain(node, gain)

    def explain(self, node: cst.CSTNode, gain: str) -> None:
        self._changes[node] = Remark(self.line(node), GAINS[gain])

    def replace(
        self,
        old: cst.BaseExpression | cst.For,
        text: str,
        gain: str,
        statement: cst.CSTNode,
        taken_over: Sequence[cst.CSTNode] = (),
    ) -> None:
        """An expression or a loop by what is written for it; statements above that go with it.

        Lines and comments that stood there stand above the statement then.

        Raises:
            NotUnderstood: if a comment there is for a tool, which reads it in its line alone.
        """
        written = text.replace(OURS, self._ours)
        new: cst.CSTNode
        if isinstance(old, cst.BaseExpression):
            new = _parenthesised(old, written)
        else:
            new = cst.parse_statement(written)
        spaces: list[tuple[cst.CSTNode, Lines]] = []
        going: list[tuple[Lines, cst.CSTNode]] = []
        for gone in taken_over:
            space, rest = lines_above(gone)
            following = self._follows(gone, taken_over, statement)
            going.append((rest if following else [*space, *rest], gone))
            spaces += [(following, space)] if following else []
        lines = lost(going, without_lines_above(old), new)
        if any(line.comment and _DIRECTIVE.match(line.comment.value) for line in lines):
            raise NotUnderstood("a comment for a tool stands where the loss would be rewritten")
        if isinstance(new, cst.SimpleStatementLine) and isinstance(old, cst.For):
            new = new.with_changes(leading_lines=[*old.leading_lines, *lines])
        else:
            self._put_above(statement, lines)
        for following, space in spaces:
            self._put_above(following, space)
        self.needs_import = True
        self.change(old, new, gain)
        self._drop(taken_over)

    def _follows(
        self, gone: cst.CSTNode, taken_over: Sequence[cst.CSTNode], keeper: cst.CSTNode
    ) -> cst.CSTNode | None:
        """What stays between a statement that goes and the keeper, and gets the space in front."""
        place = self._facts.place(gone)
        following = keeper if place is None else place[0][place[1] + 1]
        return None if following is keeper or following in taken_over else following

    def _put_above(self, statement: cst.CSTNode, lines: Lines) -> None:
        if lines:
            self.above[statement] = joined(self.above.get(statement, ()), lines)

    def _drop(self, statements: Iterable[cst.CSTNode]) -> None:
        """Statements that what is below them has taken over, with what was changed in them."""
        for statement in statements:
            self.gone.add(statement)
            for node in list(self._changes):
                if node is statement or statement in self._facts.above(node):
                    del self._changes[node]

    def touched(self, node: cst.CSTNode) -> bool:
        """Whether a node, or one above it, was changed or spoken of."""
        spoken = self.spoken_of
        return any(
            found in self.new or found in self.gone or found in spoken
            for found in (node, *self._facts.above(node))
        )

    def spoken_within(self, node: cst.CSTNode) -> bool:
        return any(node in self._facts.above(spoken) for spoken in self.spoken_of)

    def changed_within(self, node: cst.CSTNode) -> bool:
        return any(node in self._facts.above(changed) for changed in self._changes)

    def has_penalty(self, node: cst.CSTNode) -> bool:
        """Whether a penalty was written into a node, whose old text is no longer true."""
        gain = GAINS["penalty"]
        return any(
            remark.text == gain and node in self._facts.above(changed)
            for changed, remark in self._changes.items()
        )


def _parenthesised(old: cst.BaseExpression, written: str) -> cst.BaseExpression:
    """The expression that is written, in the parentheses of the one it replaces if it needs any."""
    new = cst.parse_expression(f"({written})" if "\n" in written else written)
    lpar = getattr(old, "lpar", ())
    multiline = any("\n" in code(part) for part in (*lpar, *getattr(old, "rpar", ())))
    if lpar and (multiline or isinstance(new, cst.BinaryOperation)):
        return new.with_changes(lpar=old.lpar, rpar=old.rpar)
    return new


def has_comments(node: cst.CSTNode) -> bool:
    return bool(m.findall(node, m.Comment()))
