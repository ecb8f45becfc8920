"""What the names of a script stand for: its imports, its criteria, what they are assigned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import libcst as cst
from libcst import matchers as m
from libcst.metadata import (
    MetadataWrapper,
    ParentNodeProvider,
    PositionProvider,
    QualifiedNameProvider,
)

from ganloss_fast.adopt.bindings import UNKNOWN, Binding, Bindings
from ganloss_fast.adopt.criteria import KINDS, Criteria
from ganloss_fast.adopt.syntax import bare, number

FUNCTIONS = {
    "torch.nn.functional.binary_cross_entropy_with_logits": "bce",
    "torch.nn.functional.mse_loss": "least_squares",
    "torch.nn.functional.binary_cross_entropy": "bce of probabilities",
    "torch.nn.functional.relu": "relu",
    "torch.relu": "relu",
    "torch.nn.functional.softplus": "softplus",
    "torch.nn.functional.l1_loss": "l1",
}


@dataclass
class Facts:
    """What is known of a whole script."""

    module: cst.Module
    qualified: dict[cst.CSTNode, set[str]]
    parents: dict[cst.CSTNode, cst.CSTNode]
    positions: dict[cst.CSTNode, cst.metadata.CodeRange]
    criteria: Criteria = field(init=False)
    strings: set[str] = field(init=False)  # __all__, getattr: names that nobody sees
    _scopes: dict[cst.CSTNode, Names] = field(default_factory=dict)

    @classmethod
    def of(cls, module: cst.Module) -> Facts:
        wrapper = MetadataWrapper(module)
        lazily = wrapper.resolve(QualifiedNameProvider)
        names = {node: found() if callable(found) else found for node, found in lazily.items()}
        facts = cls(
            wrapper.module,
            {node: {getattr(q, "name", "") for q in found} for node, found in names.items()},
            dict(wrapper.resolve(ParentNodeProvider)),
            dict(wrapper.resolve(PositionProvider)),
        )
        facts.strings = {
            str(node.evaluated_value)
            for node in m.findall(facts.module, m.SimpleString())
            if isinstance(node, cst.SimpleString)
        }
        facts.criteria = Criteria(facts.module, facts.parents, facts.full_name, facts.strings)
        return facts

    def full_name(self, function: cst.CSTNode) -> str:
        """``torch.nn.functional.relu`` for ``F.relu``, by the imports of the script."""
        root = function
        while isinstance(root, cst.Attribute):
            root = root.value
        if not isinstance(root, cst.Name):
            return ""  # a method of what a call returns
        found = self.qualified.get(function, set())
        return next(iter(found)) if len(found) == 1 else ""

    def above(self, node: cst.CSTNode) -> Iterator[cst.CSTNode]:
        """The node's parents, from the nearest on."""
        while (node := self.parents.get(node)) is not None:  # type: ignore[assignment]
            yield node

    def names_at(self, node: cst.CSTNode) -> Names:
        """The names of the function that a node stands in."""
        scopes = [n for n in self.above(node) if isinstance(n, (cst.FunctionDef, cst.Module))]
        return self.names_of(scopes[0])

    def names_of(self, scope: cst.CSTNode) -> Names:
        if scope not in self._scopes:
            outer = None if isinstance(scope, cst.Module) else self.names_at(scope)
            self._scopes[scope] = Names(scope, self, outer)
        return self._scopes[scope]

    def place(self, node: cst.CSTNode) -> tuple[list[cst.CSTNode], int] | None:
        """The block of the statement that a node stands in, and the statement's place there.

        None where it is evaluated at another time: in a lambda, a comprehension, a function.
        """
        for statement in (node, *self.above(node)):
            if isinstance(statement, (cst.Lambda, cst.BaseComp, cst.FunctionDef, cst.ClassDef)):
                return None
            block = self.parents.get(statement)
            if isinstance(statement, cst.BaseStatement):
                if not isinstance(block, (cst.Module, cst.IndentedBlock)):
                    return None
                body: list[cst.CSTNode] = list(block.body)
                return body, next(k for k, other in enumerate(body) if other is statement)
        return None


class Names:
    """Of one scope: a function, or what stands outside of any."""

    def __init__(self, scope: cst.CSTNode, facts: Facts, outer: Names | None = None) -> None:
        self.scope, self.facts, self._outer = scope, facts, outer
        found = Bindings(scope, facts.parents)
        scope.visit(found)
        self.bindings: dict[str, list[Binding]] = found.bindings
        self.reads: dict[str, list[cst.Name]] = found.reads
        self.looks_names_up = found.looks_names_up
        self._rebinds_names = found.rebinds_names and isinstance(scope, cst.Module)

    # ---- functions -----------------------------------------------------------------------------

    def full_name(self, function: cst.CSTNode) -> str:
        return self.facts.full_name(function)

    def function_of(self, call: cst.Call) -> str:
        """What of :data:`FUNCTIONS` a call is, directly or through a criterion made before."""
        if known := FUNCTIONS.get(self.full_name(call.func)):
            return known
        if isinstance(call.func, cst.Call) and not call.func.args:  # nn.ReLU()(x)
            return KINDS.get(self.full_name(call.func.func), "")
        if isinstance(call.func, cst.Name) and not self._is_bound(call.func.value):
            return ""
        return self.facts.criteria.kind_of(call.func)

    def _is_bound(self, name: str) -> bool:
        return name in self.bindings or (self._outer is not None and self._outer._is_bound(name))

    def mean_of(self, expression: cst.BaseExpression) -> cst.BaseExpression | None:
        """What the mean is taken of, over all elements."""
        return self.operand_of(expression, "mean")

    def operand_of(
        self, expression: cst.BaseExpression, function: str
    ) -> cst.BaseExpression | None:
        """x of ``torch.sqrt(x)`` and ``x.sqrt()``, where nothing else is given."""
        match expression:
            case cst.Call(func=cst.Attribute(value=value, attr=cst.Name(method)), args=[]) if (
                method == function
            ):
                return bare(value)
            case cst.Call(func=called, args=[argument]) if self.full_name(
                called
            ) == f"torch.{function}" and plain(argument, "input"):
                return bare(argument.value)
        return None

    def square_of(self, expression: cst.BaseExpression) -> cst.BaseExpression | None:
        """What is squared: ``x ** 2``, ``x.pow(2)``, ``torch.pow(x, 2)``, ``x.square()``."""
        match expression:
            case cst.BinaryOperation(operator=cst.Power(), left=base, right=power) if (
                number(power) == 2.0
            ):
                return bare(base)
            case cst.Call(func=cst.Attribute(value=base, attr=cst.Name("pow")), args=[power]) if (
                number(power.value) == 2.0
            ):
                return bare(base)
            case cst.Call(func=function, args=[base, power]) if (
                self.full_name(function) == "torch.pow" and number(power.value) == 2.0
            ):
                return bare(base.value)
        return self.operand_of(expression, "square")

    # ---- values --------------------------------------------------------------------------------

    def once(self, name: str) -> cst.BaseExpression | None:
        """What a name was assigned, if only once."""
        bindings = self.bindings.get(name, [])
        if len(bindings) != 1 or bindings[0].value is UNKNOWN or self._rebinds_names:
            return None
        return bindings[0].value

    def uses(self, name: str) -> int:
        """How often a name is read, in functions inside of the scope too."""
        unseen = self.looks_names_up or name in self.facts.strings
        return len(self.reads.get(name, ())) + 1000 * unseen

    def is_read(self, name: cst.Name) -> bool:
        """Whether a name is that of a value, and not of an attribute or a keyword."""
        return name in self.reads.get(name.value, ())

    def is_read_within(self, name: str) -> bool:
        """Whether a function inside of the scope reads a name."""
        return any(self.facts.names_at(read) is not self for read in self.reads.get(name, ()))

    def definition(self, name: cst.Name) -> cst.BaseExpression | None:
        """What a name stands for where it is read: assigned once, or above in the same block."""
        binding = self._binding(name)
        return None if binding is None or binding.value is UNKNOWN else binding.value

    def nearest_assign(self, name: cst.Name) -> cst.Assign | None:
        """The assignment to one target, maybe a tuple, that gave a name its value."""
        binding = self._binding(name)
        if binding is None or not isinstance(binding.node, cst.Assign):
            return None
        return binding.node if len(binding.node.targets) == 1 else None

    def _binding(self, name: cst.Name) -> Binding | None:
        bindings = self.bindings.get(name.value, [])
        if self._rebinds_names:
            return None
        if len(bindings) == 1:
            return bindings[0]
        place = self.facts.place(name)
        if place is None:
            return None
        body, k = place
        for j in range(k - 1, -1, -1):
            within = [b for b in bindings if body[j] in self.facts.above(b.node)]
            if within:
                direct = self.facts.place(within[0].node)
                straight = direct is not None and direct[0][direct[1]] is body[j]
                return within[0] if straight and len(within) == 1 else None
        return None

    def number_of(self, expression: cst.BaseExpression) -> float | None:
        """A literal, or a name that is assigned one and nothing else."""
        value = number(bare(expression))
        if value is not None or not isinstance(expression, cst.Name):
            return value
        if expression.value not in self.bindings:
            return None if self._outer is None else self._outer.number_of(expression)
        once = self.once(expression.value)
        return None if once is None else number(bare(once))


def plain(argument: cst.Arg, keyword: str = "") -> bool:
    """Whether an argument has no star, and no keyword but this one."""
    return not argument.star and (argument.keyword is None or argument.keyword.value == keyword)
