"""Statement by statement, block by block: what follows another statement may need it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import libcst as cst

from ganloss_fast.adopt import features, gradients, imports, norms
from ganloss_fast.adopt.carried import joined, lines_above
from ganloss_fast.adopt.edits import Edits, Replacement
from ganloss_fast.adopt.effects import pure
from ganloss_fast.adopt.gradients import Gradient
from ganloss_fast.adopt.losses import read_sum
from ganloss_fast.adopt.names import Facts, Names
from ganloss_fast.adopt.norms import Stage
from ganloss_fast.adopt.syntax import OURS, assigned_name, value_of
from ganloss_fast.adopt.terms import NotUnderstood
from ganloss_fast.adopt.transforms import transformed

ADAPTIVE_WEIGHT = "calculate_adaptive_weight"  # of taming-transformers and those after it
_ADAPTIVE = (
    "two gradients of the last layer, then a backward of the sum: every loss is walked back twice; "
    "gf.balanced_backward does it once"
)


class Rewriter(cst.CSTTransformer):
    """Walks over a script and fills its edits."""

    def __init__(self, facts: Facts, ours: str) -> None:
        super().__init__()
        self.edits = Edits(facts, ours)
        self._facts = facts
        self._scopes = [facts.names_of(facts.module)]
        self.edits.compiled |= transformed(facts)

    @property
    def names(self) -> Names:
        return self._scopes[-1]

    # ---- the walk ------------------------------------------------------------------------------

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.FunctionDef):
            self._scopes.append(self._facts.names_of(node))
            if node in self.edits.compiled:
                return False
            if node.name.value == ADAPTIVE_WEIGHT:
                self.edits.leave(node, _ADAPTIVE)
        elif isinstance(node, (cst.Module, cst.IndentedBlock)):
            self._read_block(list(node.body))
        return True

    def on_leave(  # type: ignore[override]  # a loop may become a statement
        self, original: cst.CSTNode, updated: cst.CSTNode
    ) -> Replacement | cst.RemovalSentinel:
        if isinstance(original, cst.FunctionDef):
            self._scopes.pop()
        if original in self.edits.gone:
            return cst.RemoveFromParent()
        result = self.edits.new.get(original, updated)
        if isinstance(original, cst.IndentedBlock) and isinstance(result, cst.IndentedBlock):
            return self._without_space_first(original, result)
        if original in self.edits.above and isinstance(result, cst.SimpleStatementLine):
            lines = joined(self.edits.above[original], result.leading_lines)
            return result.with_changes(leading_lines=lines)
        return result

    def _without_space_first(
        self, original: cst.IndentedBlock, updated: cst.IndentedBlock
    ) -> cst.IndentedBlock:
        """A block whose first statement went begins without the space that stood below that."""
        first = updated.body[0]
        if original.body[0] not in self.edits.gone or lines_above(original.body[0])[0]:
            return updated
        begun = first.with_changes(leading_lines=lines_above(first)[1])
        return updated.with_changes(body=[begun, *updated.body[1:]])

    # ---- a block of statements -----------------------------------------------------------------

    def _read_block(self, body: list[cst.CSTNode]) -> None:
        for k, statement in enumerate(body):
            if self.edits.touched(statement):
                continue
            try:
                if isinstance(statement, cst.For):
                    self._read_loop(statement)
                elif isinstance(statement, cst.SimpleStatementLine):
                    imports.read(statement, self.names, self.edits)
                value = value_of(statement)
                if value is None:
                    continue
                found = gradients.gradient(statement, self.names)
                if found is not None:
                    self._read_penalty(body, k, *found)
                    continue
            except NotUnderstood as why:
                self.edits.leave(statement, why)
                continue
            value.visit(_Expressions(self, statement))

    def read_sum(
        self, expression: cst.BaseExpression, statement: cst.CSTNode, conditional: bool
    ) -> bool:
        return read_sum(expression, statement, conditional, self.names, self.edits)

    def _read_loop(self, loop: cst.For) -> None:
        found = features.matching(loop, self.names)
        if found is not None:
            self.edits.replace(loop, found.written(), "features", loop)
        elif features.looks_like_matching(loop, self.names):
            self.edits.leave(
                loop,
                "the loop adds up distances of feature maps in a form that is not taken over: "
                "gf.feature_matching_loss(real_maps, fake_maps) is such a loop in one call",
            )

    # ---- penalties -----------------------------------------------------------------------------

    def _read_penalty(
        self, body: Sequence[cst.CSTNode], first: int, name: str, gradient: Gradient
    ) -> None:
        """The statements from a gradient to its penalty, if they are that and nothing else.

        Raises:
            NotUnderstood: if there is no penalty, or anything else uses the gradient.
        """
        known = {name: Stage("gradient", samples=gradient.samples)}
        for last in range(first + 1, len(body)):
            statement = body[last]
            value = value_of(statement)
            if value is None:
                break
            finder = _Penalties(known, self.names)
            value.visit(finder)
            if finder.found:
                self._write_penalty(body, first, last, set(known), finder.found[0], gradient)
                return
            assigned = assigned_name(statement)
            made = None if assigned is None else norms.stage(value, known, self.names)
            if made is None or assigned is None:
                break
            known[assigned] = made
        raise NotUnderstood(
            "what is made of the gradient is not followed: a penalty is read where only its norm "
            "and its mean stand below it, in plain names"
        )

    def _write_penalty(
        self,
        body: Sequence[cst.CSTNode],
        first: int,
        last: int,
        made: set[str],
        found: tuple[cst.Call, Stage, float],
        gradient: Gradient,
    ) -> None:
        node, reached, target = found
        taken_over, keeper = list(body[first:last]), body[last]
        within = {
            read
            for name in made
            for read in self.names.reads.get(name, ())
            if any(part in self._facts.above(read) for part in (node, *taken_over))
        }
        if any(self.names.uses(name) > _among(name, within) for name in made):
            raise NotUnderstood("the gradient is used for more than the penalty")
        bound = [b for name in made for b in self.names.bindings[name]]
        if any(not set(taken_over) & set(self._facts.above(b.node)) for b in bound):
            raise NotUnderstood("the names of the gradient stand for something else, too")
        if not pure(keeper, self.names, {node}) or self._deferred(node, keeper):
            raise NotUnderstood(
                "other calls stand beside the penalty, which it would be moved past"
            )
        asked = norms.written(reached, target)
        call = f"{OURS}.penalty_from_logits({gradient.logits}, {gradient.points}, {asked})"
        self.edits.replace(node, call, "penalty", keeper, taken_over)

    def _deferred(self, node: cst.CSTNode, statement: cst.CSTNode) -> bool:
        """Whether a node is evaluated at another time than its statement, or not always."""
        within = itertools.takewhile(lambda above: above is not statement, self._facts.above(node))
        return any(isinstance(above, _CONDITIONAL) for above in within)


def _among(name: str, reads: set[cst.Name]) -> int:
    return sum(read.value == name for read in reads)


_CONDITIONAL = (cst.Lambda, cst.BaseComp, cst.IfExp, cst.BooleanOperation)


class _Expressions(cst.CSTVisitor):
    """The largest expressions of a statement that are a loss."""

    def __init__(self, rewriter: Rewriter, statement: cst.CSTNode) -> None:
        super().__init__()
        self._rewriter, self._statement = rewriter, statement
        self._conditional = 0

    def on_visit(self, node: cst.CSTNode) -> bool:
        self._conditional += isinstance(node, _CONDITIONAL)
        if isinstance(node, cst.FormattedString):
            return False  # what is written has quotes of its own
        if isinstance(node, (cst.BinaryOperation, cst.UnaryOperation, cst.Call)):
            return not self._rewriter.read_sum(node, self._statement, self._conditional > 0)
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        self._conditional -= isinstance(original_node, _CONDITIONAL)


class _Penalties(cst.CSTVisitor):
    """Penalties on the norm of a gradient, in an expression."""

    def __init__(self, known: norms.Stages, names: Names) -> None:
        super().__init__()
        self._known, self._names = known, names
        self.found: list[tuple[cst.Call, Stage, float]] = []

    def visit_FormattedString(self, node: cst.FormattedString) -> bool:
        return False  # what is written has quotes of its own

    def visit_Call(self, node: cst.Call) -> bool:
        found = norms.penalty(node, self._known, self._names)
        if found is not None:
            self.found.append((node, *found))
        return found is None
