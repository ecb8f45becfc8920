"""Whether an expression may draw random numbers, run a network, or change anything."""

from __future__ import annotations

import re
from collections.abc import Container

import libcst as cst

from ganloss_fast.adopt.names import Names

_METHODS = re.compile(
    r"abs|clone|cpu|cuda|detach|dim|exp|expand_as|flatten|float|item|log|max|mean|min|norm|numel"
    r"|pow|reshape|size|sqrt|square|squeeze|sum|to|type_as|unsqueeze|view"
)
_FUNCTIONS = re.compile(
    r"builtins\.(abs|float|int|len|max|min|range|zip)"
    r"|torch\.(abs|cat|clamp|exp|full|full_like|log|mean|norm|ones|ones_like|pow|sqrt|square"
    r"|stack|sum|zeros|zeros_like|device|Size)"
)

_ACTS = (cst.Await, cst.Asynchronous, cst.Yield, cst.NamedExpr)


class _Effects(cst.CSTVisitor):
    def __init__(self, names: Names, exempt: Container[cst.CSTNode]) -> None:
        super().__init__()
        self._names, self._exempt = names, exempt
        self.found = False

    def on_visit(self, node: cst.CSTNode) -> bool:
        if node in self._exempt:
            return False
        self.found |= isinstance(node, _ACTS)
        self.found |= isinstance(node, cst.Call) and not _is_plain(node, self._names)
        return not self.found


def _is_plain(call: cst.Call, names: Names) -> bool:
    keywords = {argument.keyword.value for argument in call.args if argument.keyword}
    if keywords & {"out", "inplace"}:
        return False
    full = names.full_name(call.func)
    if _FUNCTIONS.fullmatch(full):
        return True
    if kind := names.function_of(call):
        return kind != "relu" or len(call.args) == 1  # F.relu(x, True) works in place
    if full.startswith("torch."):
        return False
    return (
        isinstance(call.func, cst.Attribute)
        and _METHODS.fullmatch(call.func.attr.value) is not None
    )


def pure(node: cst.CSTNode, names: Names, exempt: Container[cst.CSTNode] = ()) -> bool:
    """Whether every call in a node, but for some nodes, is of a function that only computes."""
    visitor = _Effects(names, exempt)
    node.visit(visitor)
    return not visitor.found
