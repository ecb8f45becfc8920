"""Feature-matching loops: nested loops over zipped maps that add up mean absolute differences."""

from __future__ import annotations

from dataclasses import dataclass

import libcst as cst

from ganloss_fast.adopt.names import Names, bare, code


@dataclass(frozen=True)
class Matching:
    """``total += mean |a - b|`` over zipped maps."""

    total: str
    real: str
    fake: str
    detach_real: bool


def matching(loop: cst.For, names: Names) -> Matching | None:
    """What a loop computes, if it is a feature-matching loop and nothing else."""
    zipped = _zipped(loop)
    if zipped is None or loop.orelse is not None:
        return None
    sides, inner = zipped, _only_statement(loop.body)
    if isinstance(inner, cst.For):
        deeper = _zipped(inner)
        if deeper is None or deeper[0] != sides[1] or inner.orelse is not None:
            return None
        maps, statement = deeper[1], _only_statement(inner.body)
    else:
        maps, statement = sides[1], inner
    if not isinstance(statement, cst.AugAssign) or not isinstance(
        statement.operator, cst.AddAssign
    ):
        return None
    compared = _compared(statement.value, names)
    if compared is None:
        return None
    detached = [text.removesuffix(".detach()") != text for text in compared]
    plain = tuple(text.removesuffix(".detach()") for text in compared)
    if set(plain) != set(maps) or all(detached):
        return None
    outer = dict(zip(maps, sides[0]))
    first, second = outer[plain[0]], outer[plain[1]]
    real, fake = (second, first) if detached[1] else (first, second)
    return Matching(code(statement.target), real, fake, any(detached))


def _zipped(loop: cst.For) -> tuple[tuple[str, str], tuple[str, str]] | None:
    """((what is zipped), (the names of its entries)) of ``for a, b in zip(x, y)``."""
    match loop:
        case cst.For(
            target=cst.Tuple(elements=[first, second]),
            iter=cst.Call(func=cst.Name("zip"), args=[x, y]),
        ):
            return (code(x.value), code(y.value)), (code(first.value), code(second.value))
    return None


def _only_statement(body: cst.BaseSuite) -> cst.CSTNode | None:
    if not isinstance(body, cst.IndentedBlock) or len(body.body) != 1:
        return None
    (statement,) = body.body
    if isinstance(statement, cst.SimpleStatementLine) and len(statement.body) == 1:
        return statement.body[0]
    return statement


def _compared(value: cst.BaseExpression, names: Names) -> tuple[str, str] | None:
    """The two sides of ``torch.mean(torch.abs(a - b))`` or ``F.l1_loss(a, b)``."""
    value = bare(value)
    if not isinstance(value, cst.Call):
        return None
    if names.function_of(value) == "l1" and len(value.args) == 2:
        return code(value.args[0].value), code(value.args[1].value)
    inner = names.mean_of(value)
    match None if inner is None else _absolute(inner, names):
        case cst.BinaryOperation(left=left, operator=cst.Subtract(), right=right):
            return code(left), code(right)
    return None


def _absolute(value: cst.BaseExpression, names: Names) -> cst.BaseExpression | None:
    match value:
        case cst.Call(func=function, args=[argument]) if names.full_name(function) == "torch.abs":
            return bare(argument.value)
        case cst.Call(func=cst.Attribute(value=inner, attr=cst.Name("abs")), args=[]):
            return bare(inner)
    return None
