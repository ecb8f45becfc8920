"""What the names of a script stand for: its imports, its criteria, what is assigned once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import libcst as cst
from libcst import matchers as m

CRITERIA = {
    "torch.nn.BCEWithLogitsLoss": "bce",
    "torch.nn.MSELoss": "least_squares",
    "torch.nn.BCELoss": "bce of probabilities",
    "torch.nn.ReLU": "relu",
}
FUNCTIONS = {
    "torch.nn.functional.binary_cross_entropy_with_logits": "bce",
    "torch.nn.functional.mse_loss": "least_squares",
    "torch.nn.functional.binary_cross_entropy": "bce of probabilities",
    "torch.nn.functional.relu": "relu",
    "torch.relu": "relu",
    "torch.nn.functional.softplus": "softplus",
    "torch.nn.functional.l1_loss": "l1",
}

_EMPTY = cst.Module([])


def code(node: cst.CSTNode) -> str:
    """The text of a node."""
    return _EMPTY.code_for_node(node)


def bare(expression: cst.BaseExpression) -> cst.BaseExpression:
    """An expression without the parentheses around it."""
    if getattr(expression, "lpar", ()):
        return expression.with_changes(lpar=[], rpar=[])
    return expression


def number(expression: cst.BaseExpression) -> float | None:
    """The value of a literal, with a sign before it or not."""
    match expression:
        case cst.Integer() | cst.Float():
            return float(expression.evaluated_value)
        case cst.UnaryOperation(operator=cst.Minus(), expression=operand):
            value = number(operand)
            return None if value is None else -value
    return None


class Names:
    """Of one scope: a function, or what stands outside of any."""

    def __init__(
        self,
        scope: cst.CSTNode,
        qualified: dict[cst.CSTNode, Collection[object]],
        criteria: dict[str, str],
    ) -> None:
        self._qualified = qualified
        self._criteria = criteria
        collector = _Assignments(scope)
        scope.visit(collector)
        self.uses = collector.uses
        self.assigned = {
            name: values[0] for name, values in collector.values.items() if len(values) == 1
        }

    def full_name(self, function: cst.CSTNode) -> str:
        """``torch.nn.functional.relu`` for ``F.relu``, by the imports of the script."""
        names = self._qualified.get(function, ())
        found = {getattr(name, "name", "") for name in names}
        return found.pop() if len(found) == 1 else ""

    def function_of(self, call: cst.Call) -> str:
        """What of :data:`FUNCTIONS` a call is, directly or through a criterion made before."""
        if known := self._criteria.get(code(call.func)):
            return known
        if isinstance(call.func, cst.Call) and not call.func.args:  # nn.ReLU()(x)
            return CRITERIA.get(self.full_name(call.func.func), "")
        return FUNCTIONS.get(self.full_name(call.func), "")

    def mean_of(self, expression: cst.BaseExpression) -> cst.BaseExpression | None:
        """What the mean is taken of, over all elements."""
        match expression:
            case cst.Call(func=cst.Attribute(value=value, attr=cst.Name("mean")), args=[]):
                return bare(value)
            case cst.Call(func=function, args=[argument]) if (
                self.full_name(function) == "torch.mean"
            ):
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
            case cst.Call(func=function, args=[base]) if self.full_name(function) == "torch.square":
                return bare(base.value)
            case cst.Call(func=cst.Attribute(value=base, attr=cst.Name("square")), args=[]):
                return bare(base)
        return None

    def value_of(self, expression: cst.BaseExpression) -> cst.BaseExpression | None:
        """What a name was assigned, if only once."""
        return self.assigned.get(code(expression))


def criteria_of(
    module: cst.Module, qualified: dict[cst.CSTNode, Collection[object]]
) -> dict[str, str]:
    """Criteria that are made without options and once: ``self.criterion = nn.MSELoss()``."""
    collector = _Assignments()
    module.visit(collector)
    found = {}
    for name, values in collector.values.items():
        kinds = set()
        for value in values:
            moved = value
            while m.matches(moved, m.Call(func=m.Attribute(attr=m.Name("to") | m.Name("cuda")))):
                moved = cst.ensure_type(cst.ensure_type(moved, cst.Call).func, cst.Attribute).value
            if isinstance(moved, cst.Call) and not moved.args:
                names = {getattr(q, "name", "") for q in qualified.get(moved.func, ())}
                kinds |= {CRITERIA.get(name, "") for name in names}
            else:
                kinds.add("")
        if len(kinds) == 1 and (kind := kinds.pop()):
            found[name] = kind
    return found


UNKNOWN = cst.Ellipsis()
"""What a name stands for that is given no value of its own: a parameter, the target of a loop."""


class _Assignments(cst.CSTVisitor):
    """Every value that a name is given in one scope, or in all, and how often it is read, in
    functions inside of the scope too."""

    def __init__(self, scope: cst.CSTNode | None = None) -> None:
        self.scope = scope
        self.values: dict[str, list[cst.BaseExpression]] = {}
        self.uses: Counter[str] = Counter()
        self._depth = 0  # of functions inside of the scope

    def _bind(self, target: cst.BaseExpression, value: cst.BaseExpression = UNKNOWN) -> None:
        for name, part in _pairs(target, value):
            if self.scope is None or self._depth == 0:
                self.values.setdefault(code(name), []).append(part)
            if isinstance(name, cst.Name):
                self.uses[name.value] -= 1  # its place left of the sign is no use of it

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        self._depth += node is not self.scope

    def leave_FunctionDef(self, original_node: cst.FunctionDef) -> None:
        self._depth -= original_node is not self.scope

    def visit_Assign(self, node: cst.Assign) -> None:
        for target in node.targets:
            self._bind(target.target, node.value)

    def visit_AnnAssign(self, node: cst.AnnAssign) -> None:
        self._bind(node.target, node.value or UNKNOWN)

    def visit_AugAssign(self, node: cst.AugAssign) -> None:
        self.values.setdefault(code(node.target), []).append(UNKNOWN)  # it is read as well

    def visit_NamedExpr(self, node: cst.NamedExpr) -> None:
        self._bind(node.target)

    def visit_Param(self, node: cst.Param) -> None:
        self._bind(node.name)

    def visit_For(self, node: cst.For) -> None:
        self._bind(node.target)

    def visit_AsName(self, node: cst.AsName) -> None:
        self._bind(node.name)

    def visit_Name(self, node: cst.Name) -> None:
        self.uses[node.value] += 1


def _pairs(
    target: cst.BaseExpression, value: cst.BaseExpression
) -> list[tuple[cst.BaseExpression, cst.BaseExpression]]:
    """What is assigned to what: ``a, b = x, y`` gives two pairs."""
    if not isinstance(target, (cst.Tuple, cst.List)):
        return [(target, value)]
    names = [element.value for element in target.elements]
    if isinstance(value, (cst.Tuple, cst.List)) and len(value.elements) == len(names):
        return list(zip(names, (element.value for element in value.elements)))
    return [(name, value if len(names) == 1 else UNKNOWN) for name in names]
