"""One script: what is rewritten in it, what is left alone, and why."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

import libcst as cst
from libcst.codemod import CodemodContext
from libcst.codemod.visitors import AddImportsVisitor
from libcst.metadata import MetadataWrapper, PositionProvider, QualifiedNameProvider

from ganloss_fast.adopt import features, gradients, imports, sums
from ganloss_fast.adopt.blocks import (
    Nodes,
    Reads,
    assigned_above,
    targets,
    value_of,
    zeroed_after,
)
from ganloss_fast.adopt.names import Names, bare, code, criteria_of
from ganloss_fast.adopt.sums import Summand
from ganloss_fast.adopt.terms import NotUnderstood, Term


@dataclass(frozen=True)
class Remark:
    """What is said about a line."""

    line: int
    text: str


@dataclass
class Proposal:
    """A script as it is and as it may be."""

    path: str
    before: str
    after: str
    changes: list[Remark] = field(default_factory=list)
    left_alone: list[Remark] = field(default_factory=list)

    def diff(self) -> str:
        return "".join(
            difflib.unified_diff(
                self.before.splitlines(keepends=True),
                self.after.splitlines(keepends=True),
                self.path,
                self.path,
            )
        )


Replacement = cst.CSTNode | cst.FlattenSentinel[cst.SimpleStatementLine]

GENERATOR = re.compile(r"(^|[._])(net_?)?g(en\w*)?(_\w+)?$", re.I)

ADAPTIVE_WEIGHT = "calculate_adaptive_weight"  # of taming-transformers and those after it
SHAPING = {"reshape", "view", "squeeze", "flatten"}

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


def propose(source: str, path: str = "script.py") -> Proposal:
    """What may be rewritten in a script.

    Raises:
        SyntaxError: if it is no Python.
    """
    try:
        wrapper = MetadataWrapper(cst.parse_module(source))
    except cst.ParserSyntaxError as error:
        raise SyntaxError(f"{path}: {error.message} (line {error.raw_line})") from None
    lazily = wrapper.resolve(QualifiedNameProvider)
    qualified = {node: names() if callable(names) else names for node, names in lazily.items()}
    rewriter = _Rewriter(wrapper.module, qualified, dict(wrapper.resolve(PositionProvider)))
    module = wrapper.module.visit(rewriter)
    proposal = Proposal(path, source, source)
    proposal.left_alone = sorted(rewriter.left_alone, key=lambda remark: remark.line)
    if rewriter.changes:
        context = CodemodContext()
        if "gf." in module.code:
            AddImportsVisitor.add_needed_import(context, "ganloss_fast", asname="gf")
        proposal.after = AddImportsVisitor(context).transform_module(module).code
        proposal.changes = rewriter.changes
    return proposal


class _Rewriter(cst.CSTTransformer):
    """Statement by statement, block by block: what follows another statement may need it."""

    def __init__(
        self,
        module: cst.Module,
        qualified: dict[cst.CSTNode, Collection[object]],
        positions: dict[cst.CSTNode, cst.metadata.CodeRange],
    ) -> None:
        super().__init__()
        self._changes: dict[cst.CSTNode, Remark] = {}
        self.left_alone: list[Remark] = []
        self._qualified = qualified
        self._positions = positions
        self._criteria = criteria_of(module, qualified)
        self._scopes = [Names(module, qualified, self._criteria)]
        self._new: dict[cst.CSTNode, Replacement] = {}  # in place of a node
        self._gone: set[cst.CSTNode] = set()

    # ---- the walk ------------------------------------------------------------------------------

    @property
    def changes(self) -> list[Remark]:
        return sorted(self._changes.values(), key=lambda remark: remark.line)

    @property
    def names(self) -> Names:
        return self._scopes[-1]

    def on_visit(self, node: cst.CSTNode) -> bool:
        if node in self._new or node in self._gone:
            return False
        if isinstance(node, cst.FunctionDef):
            self._scopes.append(Names(node, self._qualified, self._criteria))
            if node.name.value == ADAPTIVE_WEIGHT:
                self._leave(
                    node,
                    "two gradients of the last layer, then a backward of the sum: every loss is "
                    "walked back twice; gf.balanced_backward does it once",
                )
        elif isinstance(node, (cst.Module, cst.IndentedBlock)):
            self._read_block(node.body)
        return True

    def on_leave(  # type: ignore[override]  # a loop may become a statement
        self, original: cst.CSTNode, updated: cst.CSTNode
    ) -> Replacement | cst.RemovalSentinel:
        if isinstance(original, cst.FunctionDef):
            self._scopes.pop()
        if original in self._gone:
            return cst.RemoveFromParent()
        return self._new.get(original, updated)

    def _line(self, node: cst.CSTNode) -> int:
        return self._positions[node].start.line

    def _change(self, node: cst.CSTNode, new: Replacement, gain: str) -> None:
        self._new[node] = new
        self._changes[node] = Remark(self._line(node), GAINS[gain])

    def _drop(self, statements: Iterable[cst.CSTNode]) -> None:
        """Statements that what is below them has taken over, with what was changed in them."""
        for statement in statements:
            self._gone.add(statement)
            within = Nodes()
            statement.visit(within)
            for node in within.found & self._changes.keys():
                del self._changes[node]

    def _leave(self, node: cst.CSTNode, why: object) -> None:
        self.left_alone.append(Remark(self._line(node), str(why)))

    # ---- a block of statements -----------------------------------------------------------------

    def _read_block(self, body: Sequence[cst.BaseStatement | cst.BaseSmallStatement]) -> None:
        gradient: tuple[int, gradients.Gradient] | None = None
        for k, statement in enumerate(body):
            if isinstance(statement, cst.For):
                self._read_loop(statement)
            elif isinstance(statement, cst.SimpleStatementLine):
                self._read_import(statement)
            value = value_of(statement)
            if value is None or statement in self._gone:
                continue
            try:
                found = gradients.gradient(value, self.names)
                if found is not None:
                    gradient = (k, found)
                    continue
                if gradient is not None and self._read_penalty(body, k, value, *gradient):
                    gradient = None
                    continue
            except NotUnderstood as why:
                self._leave(statement, why)
                continue
            value.visit(_Expressions(self, body, k))

    def _read_import(self, statement: cst.SimpleStatementLine) -> None:
        lines = imports.from_drop_in(statement)
        if lines is not None:
            self._change(statement, cst.FlattenSentinel(lines), "drop-in")

    def _read_loop(self, loop: cst.For) -> None:
        found = features.matching(loop, self.names)
        if found is None:
            return
        detached = "" if found.detach_real else ", detach_real=False"
        call = f"gf.feature_matching_loss({found.real}, {found.fake}{detached})"
        statement = cst.parse_statement(f"{found.total} += {call}")
        assert isinstance(statement, cst.SimpleStatementLine)
        self._change(loop, statement.with_changes(leading_lines=loop.leading_lines), "features")

    def _read_penalty(
        self,
        body: Sequence[cst.CSTNode],
        last: int,
        value: cst.BaseExpression,
        first: int,
        gradient: gradients.Gradient,
    ) -> bool:
        """Whether the statements from the gradient to this one are a penalty, and nothing else."""
        finder = _Penalties(self.names)
        value.visit(finder)
        if not finder.found:
            return False
        node, norms, target = finder.found[0]
        between = list(body[first:last])
        made = [name for statement in between for name in targets(statement)]
        flat = any(
            gradients.flattened(bare(v)) is not None
            for statement in between[1:]
            if (v := value_of(statement)) is not None
        )
        if norms.name not in made or any(value_of(statement) is None for statement in between):
            return False
        used_again = Reads(set(made))
        for statement in body[last + 1 :]:
            statement.visit(used_again)
        beside = Reads(set(made))
        value.visit(beside)
        own = Reads(set(made))
        node.visit(own)
        if used_again.count or beside.count > own.count:
            self._leave(body[first], "the gradient is used for more than the penalty")
            return True
        norms = replace(norms, per_sample=norms.per_sample or flat)
        asked = gradients.written(norms, target)
        call = f"gf.penalty_from_logits({gradient.logits}, {gradient.points}, {asked})"
        self._change(node, cst.parse_expression(call), "penalty")
        self._drop(between)
        return True

    # ---- sums of terms -------------------------------------------------------------------------

    def read_sum(self, expression: cst.BaseExpression, body: Sequence[cst.CSTNode], k: int) -> bool:
        """Whether an expression was rewritten, or is said to be left alone."""
        try:
            for expandable in (self._expandable(body, k), frozenset[str]()):
                found = sums.summands(expression, self.names, expandable)
                pair = sums.pairs(found)
                if pair is not None and self._in_order(pair, body, k):
                    return self._write_pair(expression, found, pair, body, k)
            (only,) = found if len(found) == 1 else (None,)
            if only is not None and isinstance(only.content, Term):
                side = sums.side_of(only)
                if side is not None:
                    self._change(expression, cst.parse_expression(side), "side")
                return side is not None
        except NotUnderstood as why:
            self._leave(expression, why)
            return True
        return False

    def _write_pair(
        self,
        expression: cst.BaseExpression,
        found: list[Summand],
        pair: tuple[Summand, Summand],
        body: Sequence[cst.CSTNode],
        k: int,
    ) -> bool:
        fake_first = found.index(pair[1]) < found.index(pair[0])
        detached = pair[0], self._detached(pair[1], body, k)
        written = sums.without(found, pair, sums.call_of(*detached, fake_first))
        new = cst.parse_expression(written)
        if getattr(expression, "lpar", ()) and isinstance(new, cst.BinaryOperation):
            new = new.with_changes(lpar=expression.lpar, rpar=expression.rpar)
        self._change(expression, new, "loss")
        sources = {summand.source for summand in found} - {""}
        self._drop(statement for statement in body if set(targets(statement)) & sources)
        return True

    def _detached(self, fake: Summand, body: Sequence[cst.CSTNode], k: int) -> Summand:
        """The fake's term, without a way back into the generator that nobody needs."""
        assert isinstance(fake.content, Term)
        logits: cst.BaseExpression | None = fake.content.logits
        place = k
        if isinstance(logits, cst.Name):
            if self.names.uses[logits.value] != 1:
                return fake
            place, logits = assigned_above(body, k, logits.value)
        while logits is not None and (shaped := _shaped(logits)) is not None:
            logits = shaped
        match logits:
            case cst.Call(func=critic, args=[cst.Arg(value=cst.Name(name)) as sample, *_]):
                _, made = assigned_above(body, place, name)
            case _:
                return fake
        if not (isinstance(made, cst.Call) and GENERATOR.search(code(made.func))):
            return fake
        if code(made.func) == code(critic):
            return fake
        if not zeroed_after(body, k):
            self._leave(
                logits,
                f"{name} is not detached, so that the critic's backward walks through the "
                f"generator: if nobody reads what it leaves there, write {name}.detach()",
            )
            return fake
        self._change(sample, cst.Arg(cst.parse_expression(f"{name}.detach()")), "detach")
        if place != k or logits is not fake.content.logits:
            return fake
        called = logits.with_deep_changes(sample, value=cst.parse_expression(f"{name}.detach()"))
        assert isinstance(called, cst.Call)
        return replace(fake, content=replace(fake.content, logits=called))

    def _expandable(self, body: Sequence[cst.CSTNode], k: int) -> frozenset[str]:
        """Names that were assigned above, in this block, and are read once."""
        above = {name for statement in body[:k] for name in targets(statement)}
        return frozenset(
            name for name in above if name in self.names.assigned and self.names.uses[name] == 1
        )

    def _in_order(self, pair: tuple[Summand, Summand], body: Sequence[cst.CSTNode], k: int) -> bool:
        """Whether what was computed above may be computed here: nothing between acts on it."""
        sources = {summand.source for summand in pair} - {""}
        if not sources:
            return True
        places = [j for j in range(k) if set(targets(body[j])) & sources]
        runs = any(
            isinstance(summand.content, Term) and "(" in code(summand.content.logits)
            for summand in pair
        )
        between = [body[j] for j in range(min(places), k) if j not in places]
        if any(value_of(statement) is None for statement in between):
            return False
        if any(_reassigned(body[j], body[j + 1 : k]) for j in places):
            return False
        return not (runs and between)


def _reassigned(statement: cst.CSTNode, below: Sequence[cst.CSTNode]) -> bool:
    """Whether a name that a statement reads means something else further down."""
    reads = Reads({name for later in below for name in targets(later)})
    value = value_of(statement)
    assert value is not None
    value.visit(reads)
    return reads.count > 0


def _shaped(expression: cst.BaseExpression) -> cst.BaseExpression | None:
    """x of ``x.reshape(-1)`` and the like."""
    match expression:
        case cst.Call(func=cst.Attribute(value=value, attr=cst.Name(name))) if name in SHAPING:
            return value
    return None


class _Expressions(cst.CSTVisitor):
    """The largest expressions of a statement that are a loss."""

    def __init__(self, rewriter: _Rewriter, body: Sequence[cst.CSTNode], k: int) -> None:
        super().__init__()
        self._rewriter, self._body, self._k = rewriter, body, k

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, (cst.BinaryOperation, cst.UnaryOperation, cst.Call)):
            return not self._rewriter.read_sum(node, self._body, self._k)
        return True


class _Penalties(cst.CSTVisitor):
    """Penalties on the norm of a gradient, in an expression."""

    def __init__(self, names: Names) -> None:
        super().__init__()
        self._names = names
        self.found: list[tuple[cst.Call, gradients.Norms, float]] = []

    def visit_Call(self, node: cst.Call) -> bool:
        found = gradients.penalty(node, self._names)
        if found is not None:
            self.found.append((node, *found))
        return found is None
