"""Nodes of libcst: their text, their parentheses, their comments, their numbers."""

from __future__ import annotations

from collections.abc import Iterable

import libcst as cst
from libcst import matchers as m

OURS = "__ganloss_fast__"
"""The package, in what is written, until it is known under which name the script imports it."""

_EMPTY = cst.Module([])


def code(node: cst.CSTNode) -> str:
    """The text of a node."""
    return _EMPTY.code_for_node(node)


def bare(expression: cst.BaseExpression) -> cst.BaseExpression:
    """An expression without the parentheses around it.

    Of a node with parentheses it is a copy, of which the script's metadata knows nothing; the nodes
    below are the same.
    """
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


def comments(nodes: Iterable[cst.CSTNode]) -> list[str]:
    """The comments that stand in some nodes, from above to below."""
    return [code(found) for node in nodes for found in m.findall(node, m.Comment())]


def names_in(node: cst.CSTNode) -> set[str]:
    """Every identifier in a node."""
    return {found.value for found in m.findall(node, m.Name()) if isinstance(found, cst.Name)}


def small(statement: cst.CSTNode) -> cst.BaseSmallStatement | None:
    """The only small statement of a line."""
    if isinstance(statement, cst.SimpleStatementLine) and len(statement.body) == 1:
        return statement.body[0]
    return None


def value_of(statement: cst.CSTNode) -> cst.BaseExpression | None:
    """What a statement computes: assigns, returns, or evaluates for its effect."""
    found = small(statement)
    if isinstance(found, (cst.Assign, cst.AnnAssign, cst.Return, cst.AugAssign, cst.Expr)):
        return found.value
    return None


def assigned_name(statement: cst.CSTNode) -> str | None:
    """The name of a statement that assigns one plain name and nothing else."""
    match small(statement):
        case cst.Assign(targets=[cst.AssignTarget(target=cst.Name(name))]):
            return name
        case cst.AnnAssign(target=cst.Name(name), value=value) if value is not None:
            return name
    return None
