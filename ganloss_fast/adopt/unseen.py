"""What looks like a loss and was neither changed nor spoken of: a word for each."""

from __future__ import annotations

import libcst as cst
from libcst import matchers as m

from ganloss_fast.adopt import imports
from ganloss_fast.adopt.edits import Edits
from ganloss_fast.adopt.gradients import is_gradient
from ganloss_fast.adopt.names import Facts, Names
from ganloss_fast.adopt.syntax import code
from ganloss_fast.adopt.terms import NotUnderstood, Term, term

_DOUBTFUL = (
    "the criterion may be another one, or changed: it is known where a name stands for one alone, "
    "made without options, and nothing in the script can change or exchange it"
)


def unseen(facts: Facts, edits: Edits) -> None:
    """Remarks on losses in places that are not read, on gradients that are not followed, and on
    losses of the script's own that there is a drop-in for."""
    facts.module.visit(_Unseen(facts, edits))


class _Unseen(cst.CSTVisitor):
    def __init__(self, facts: Facts, edits: Edits) -> None:
        super().__init__()
        self._facts, self._edits = facts, edits
        self._scopes = [facts.names_of(facts.module)]

    @property
    def _names(self) -> Names:
        return self._scopes[-1]

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        self._scopes.append(self._facts.names_of(node))
        imports.speak_of_own(node, self._edits)

    def leave_FunctionDef(self, original_node: cst.FunctionDef) -> None:
        self._scopes.pop()

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        imports.speak_of_own(node, self._edits)

    def visit_Call(self, node: cst.Call) -> None:
        if self._edits.touched(node):
            return
        if is_gradient(node, self._names):
            self._edits.leave(node, "a gradient with a graph, in a place that is not followed")
            return
        if why := _loss_in(node, self._names):
            compiled = any(above in self._edits.compiled for above in self._facts.above(node))
            self._edits.leave(
                node, "a loss in a function that a compiler reads" if compiled else why
            )
            return
        if self._facts.criteria.is_doubtful(node.func):
            self._edits.leave(node, _DOUBTFUL)
            return
        imports.speak_of_called(node, self._names, self._edits)

    def visit_BinaryOperation(self, node: cst.BinaryOperation) -> None:
        if isinstance(node.operator, cst.Divide) and self._is_adaptive(node):
            self._edits.leave(
                node,
                "a ratio of two gradients' norms weighs a loss, and every loss is walked back "
                "twice; gf.balanced_backward does it once",
            )

    def _is_adaptive(self, ratio: cst.BinaryOperation) -> bool:
        sides = (ratio.left, ratio.right)
        if not all("norm(" in code(side) for side in sides) or self._edits.touched(ratio):
            return False
        return all(any(self._is_of_gradient(name) for name in _names_in(side)) for side in sides)

    def _is_of_gradient(self, name: cst.Name) -> bool:
        bindings = self._names.bindings.get(name.value, [])
        return any("grad(" in code(binding.node) for binding in bindings)


def _names_in(node: cst.CSTNode) -> list[cst.Name]:
    return [found for found in m.findall(node, m.Name()) if isinstance(found, cst.Name)]


def _loss_in(call: cst.Call, names: Names) -> str:
    """What to say of a call that is a loss; nothing where it may be any mean."""
    try:
        found = term(call, names)
    except NotUnderstood as why:
        return str(why)
    if not isinstance(found, Term) or found.kind in ("linear", "clamped hinge"):
        return ""
    if found.kind == "least_squares" and not found.has_target:
        return ""
    return "a loss in a place that is not read: it has to stand in one statement on its own line"
