"""Where names are bound and where they are read, in one scope."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import libcst as cst

UNKNOWN: cst.BaseExpression = cst.Ellipsis()
"""What a name stands for that is given no value of its own: a parameter, the target of a loop."""

_BY_NAME = {"locals", "globals", "eval", "exec", "setattr"}
_ASKED = {"get", "items", "keys", "values", "copy"}  # of a namespace, without a change


@dataclass(frozen=True)
class Binding:
    """One place that gives a name a value."""

    target: cst.BaseExpression
    value: cst.BaseExpression
    node: cst.CSTNode


class Bindings(cst.CSTVisitor):
    """Every value that a name is given in one scope, or in all, and every place that reads it,
    in functions inside of the scope too."""

    def __init__(
        self, scope: cst.CSTNode | None, parents: Mapping[cst.CSTNode, cst.CSTNode]
    ) -> None:
        super().__init__()
        self._scope, self._parents = scope, parents
        self._targets: set[cst.CSTNode] = set()
        self._depth = 0  # of functions inside of the scope
        self.everything: list[Binding] = []  # of attributes and subscripts too
        self.bindings: dict[str, list[Binding]] = {}
        self.reads: dict[str, list[cst.Name]] = {}
        self.looks_names_up = False  # with locals() or the like
        self.rebinds_names = False  # at the module's level, with exec() or globals()[...] = ...
        self.sets_attributes = False  # by a text: setattr(), __dict__

    def _bind(
        self,
        target: cst.BaseExpression,
        node: cst.CSTNode,
        value: cst.BaseExpression = UNKNOWN,
        everywhere: bool = False,
    ) -> None:
        for part, given in pairs(target, value):
            if self._scope is None or self._depth == 0 or everywhere:
                binding = Binding(part, given, node)
                self.everything.append(binding)
                if isinstance(part, cst.Name):
                    self.bindings.setdefault(part.value, []).append(binding)
            if isinstance(part, cst.Name):
                self._targets.add(part)

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        if node is not self._scope:
            self._bind(node.name, node)
            self._depth += 1

    def leave_FunctionDef(self, original_node: cst.FunctionDef) -> None:
        self._depth -= original_node is not self._scope

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        self._bind(node.name, node)

    def visit_Assign(self, node: cst.Assign) -> None:
        for target in node.targets:
            self._bind(target.target, node, node.value)

    def visit_AnnAssign(self, node: cst.AnnAssign) -> None:
        self._bind(node.target, node, node.value or UNKNOWN)

    def visit_AugAssign(self, node: cst.AugAssign) -> None:
        self._bind(node.target, node)
        self._targets.discard(node.target)  # it is read as well

    def visit_NamedExpr(self, node: cst.NamedExpr) -> None:
        self._bind(node.target, node)

    def visit_Param(self, node: cst.Param) -> None:
        self._bind(node.name, node)

    def visit_For(self, node: cst.For) -> None:
        self._bind(node.target, node)

    def visit_CompFor(self, node: cst.CompFor) -> None:
        self._bind(node.target, node)

    def visit_AsName(self, node: cst.AsName) -> None:
        self._bind(node.name, node)

    def visit_Del(self, node: cst.Del) -> None:
        self._bind(node.target, node)
        self._targets.discard(node.target)

    def visit_NameItem(self, node: cst.NameItem) -> None:
        """``global`` and ``nonlocal``: who else binds the name is not seen."""
        self._bind(node.name, node, everywhere=True)

    def visit_MatchAs(self, node: cst.MatchAs) -> None:
        if node.name is not None:
            self._bind(node.name, node)

    def visit_MatchStar(self, node: cst.MatchStar) -> None:
        if node.name is not None:
            self._bind(node.name, node)

    def visit_ImportAlias(self, node: cst.ImportAlias) -> bool:
        name: cst.BaseExpression = node.name
        while isinstance(name, cst.Attribute):
            name = name.value
        if node.asname is None:
            self._bind(name, node)
        return node.asname is not None

    def visit_Name(self, node: cst.Name) -> None:
        if node in self._targets:
            return
        parent = self._parents.get(node)
        if isinstance(parent, (cst.ImportAlias, cst.ImportFrom)):
            return
        if isinstance(parent, cst.Attribute) and parent.attr is node:
            return
        if isinstance(parent, cst.Arg) and parent.keyword is node:
            return
        self.reads.setdefault(node.value, []).append(node)
        called = parent if isinstance(parent, cst.Call) and parent.func is node else None
        bare_vars = node.value == "vars" and called is not None and not called.args
        self.looks_names_up |= bare_vars or node.value in _BY_NAME
        self.sets_attributes |= node.value == "setattr" or (node.value == "vars" and not bare_vars)
        if node.value == "exec":
            self.rebinds_names = True
        elif node.value == "globals" or (
            self._depth == 0 and (bare_vars or node.value == "locals")
        ):
            self.rebinds_names |= called is None or not self._only_asked(called)

    def visit_Attribute(self, node: cst.Attribute) -> None:
        self.sets_attributes |= node.attr.value == "__dict__"

    def _only_asked(self, namespace: cst.Call) -> bool:
        """Whether nothing is put into what ``globals()`` gives."""
        use = self._parents.get(namespace)
        match use:
            case cst.Attribute(attr=cst.Name(name)):
                return name in _ASKED
            case cst.Subscript():
                around = self._parents.get(use)
                return not isinstance(
                    around, (cst.AssignTarget, cst.AugAssign, cst.Del, cst.Element)
                )
            case cst.Arg(star="**") | cst.ComparisonTarget():
                return True
            case cst.BinaryOperation(operator=cst.Modulo()):
                return True
        return False


def pairs(
    target: cst.BaseExpression, value: cst.BaseExpression
) -> Iterator[tuple[cst.BaseExpression, cst.BaseExpression]]:
    """What is assigned to what: ``a, b = x, y`` gives two pairs."""
    if not isinstance(target, (cst.Tuple, cst.List)):
        yield target, value
        return
    places = [element.value for element in target.elements]
    starred = any(isinstance(element, cst.StarredElement) for element in target.elements)
    if (
        isinstance(value, (cst.Tuple, cst.List))
        and len(value.elements) == len(places)
        and not starred
        and not any(isinstance(element, cst.StarredElement) for element in value.elements)
    ):
        for place, element in zip(places, value.elements):
            yield from pairs(place, element.value)
        return
    for place in places:
        yield from pairs(place, UNKNOWN)
