"""One term of a loss: what phi is applied to which logits, with which target."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import libcst as cst
from libcst import matchers as m

from ganloss_fast.adopt.names import Names, plain
from ganloss_fast.adopt.syntax import bare, number
from ganloss_fast.adopt.targets import constant

# A clamped hinge is that of torch.clamp or torch.min: a hinge with another slope at its margin.
Kind = Literal["bce", "least_squares", "hinge", "clamped hinge", "linear"]


@dataclass(frozen=True)
class Term:
    """``mean phi(logits)``: towards a label for bce and least_squares, to 1 or -1 for hinge."""

    kind: Kind
    label: float
    logits: cst.BaseExpression
    has_target: bool = False  # written with a target; a bare mean square may be anything
    of_torch: bool = True  # x.mean() may be NumPy's
    negated: bool = False  # it is the negative of this


class NotUnderstood(Exception):
    """An expression looks like a loss and is left alone; the message says why."""


def term(expression: cst.BaseExpression, names: Names) -> Term | None:
    """The term that an expression is, None if it is something else.

    Raises:
        NotUnderstood: if it is one of the losses, in a form that cannot be taken over.
    """
    if isinstance(expression, cst.Call):
        kind = names.function_of(expression)
        if kind in ("bce", "least_squares"):
            return _criterion(kind, expression, names)  # type: ignore[arg-type]
        if kind == "bce of probabilities":
            raise NotUnderstood(
                "BCE on probabilities: leave out the critic's sigmoid and use "
                'discriminator_loss(real_logits, fake_logits, "bce"), which keeps the tail'
            )
    inner = names.mean_of(expression)
    if inner is None:
        return None
    found = mean_of(inner, names)
    if found is None:
        return None
    _check_logits(found)
    function = names.full_name(expression.func) if isinstance(expression, cst.Call) else ""
    return replace(found, of_torch=found.of_torch or function == "torch.mean")


def _criterion(kind: Kind, call: cst.Call, names: Names) -> Term:
    given = {}
    for argument, expected in zip(call.args, ("input", "target")):
        if not plain(argument, argument.keyword.value if argument.keyword else ""):
            break
        given[argument.keyword.value if argument.keyword else expected] = argument.value
    if len(call.args) != 2 or given.keys() != {"input", "target"}:
        raise NotUnderstood("the criterion has options (weight, reduction, ...)")
    label = constant(given["target"], names)
    if label is None:
        raise NotUnderstood(
            "the target is no constant that can be seen: something else reads or changes it, or it "
            "is not made of one number"
        )
    found = Term(kind, label, bare(given["input"]), has_target=True)
    _check_logits(found)
    return found


def _check_logits(found: Term) -> None:
    if m.findall(found.logits, m.NamedExpr() | m.Await() | m.Yield()):
        raise NotUnderstood("something is assigned or awaited within the loss")


def mean_of(inner: cst.BaseExpression, names: Names) -> Term | None:
    """The term that the mean of an expression is."""
    if isinstance(inner, cst.Call) and len(inner.args) == 1 and plain(inner.args[0], "input"):
        kind = names.function_of(inner)
        if kind == "relu":
            return _hinge(bare(inner.args[0].value))
        if kind == "softplus":
            argument = bare(inner.args[0].value)
            if m.matches(argument, m.UnaryOperation(operator=m.Minus())):
                logits = bare(cst.ensure_type(argument, cst.UnaryOperation).expression)
                return Term("bce", 1.0, logits)
            return Term("bce", 0.0, argument)
    squared = names.square_of(inner)
    if squared is not None:
        return _least_squares(squared)
    clamped = _clamped(inner, names)
    if clamped is not None:
        return clamped
    return Term("linear", 0.0, inner, of_torch=False)


def _hinge(argument: cst.BaseExpression) -> Term | None:
    """``1 - x`` and ``1 + x``, in either order."""
    match argument:
        case cst.BinaryOperation(left=left, operator=cst.Subtract(), right=right) if (
            number(left) == 1.0
        ):
            return Term("hinge", 1.0, bare(right))
        case cst.BinaryOperation(left=left, operator=cst.Add(), right=right):
            if number(left) == 1.0:
                return Term("hinge", -1.0, bare(right))
            if number(right) == 1.0:
                if isinstance(left, cst.UnaryOperation) and isinstance(left.operator, cst.Minus):
                    return Term("hinge", 1.0, bare(left.expression))
                return Term("hinge", -1.0, bare(left))
    return None


# Functions that clamp, and of which the hinge is the negative: torch.min(x - 1, zeros).
_CLAMPS = {"clamp", "clamp_min", "max", "maximum", "min", "minimum"}
_MINIMA = {"min", "minimum"}


def _clamped(inner: cst.BaseExpression, names: Names) -> Term | None:
    """``(1 - x).clamp(min=0)``, ``torch.maximum(zeros, 1 - x)``, ``torch.min(x - 1, zeros)``."""
    if not isinstance(inner, cst.Call):
        return None
    package, _, function = names.full_name(inner.func).rpartition(".")
    arguments = [bare(argument.value) for argument in inner.args]
    if package != "torch" and isinstance(inner.func, cst.Attribute):
        function = inner.func.attr.value
        arguments.insert(0, bare(inner.func.value))
    if function not in _CLAMPS:
        return None
    zeros = [number(argument) == 0.0 or constant(argument, names) == 0.0 for argument in arguments]
    if sorted(zeros) != [False, True]:
        return None
    keywords = {argument.keyword.value for argument in inner.args if argument.keyword is not None}
    negated = function in _MINIMA or "max" in keywords
    rest = arguments[zeros.index(False)]
    found = _negated_hinge(rest) if negated else _hinge(rest)
    return None if found is None else replace(found, kind="clamped hinge", negated=negated)


def _negated_hinge(argument: cst.BaseExpression) -> Term | None:
    """``x - 1`` and ``-x - 1``, in either order."""
    match argument:
        case cst.BinaryOperation(left=left, operator=cst.Subtract(), right=right) if (
            number(right) == 1.0
        ):
            rest = left
        case cst.BinaryOperation(left=left, operator=cst.Add(), right=right) if (
            number(left) == -1.0
        ):
            rest = right
        case cst.BinaryOperation(left=left, operator=cst.Subtract(), right=right) if (
            number(left) == -1.0
        ):
            return Term("hinge", -1.0, bare(right))
        case _:
            return None
    if isinstance(rest, cst.UnaryOperation) and isinstance(rest.operator, cst.Minus):
        return Term("hinge", -1.0, bare(rest.expression))
    return Term("hinge", 1.0, bare(rest))


def _least_squares(base: cst.BaseExpression) -> Term:
    """``x - c``, ``c - x``, ``x + c`` or ``x``."""
    match base:
        case cst.BinaryOperation(left=left, operator=cst.Subtract(), right=right):
            if (label := number(right)) is not None:
                return Term("least_squares", label, bare(left), of_torch=False)
            if (label := number(left)) is not None:
                return Term("least_squares", label, bare(right), of_torch=False)
        case cst.BinaryOperation(left=left, operator=cst.Add(), right=right):
            if (label := number(right)) is not None:
                return Term("least_squares", -label, bare(left), of_torch=False)
            if (label := number(left)) is not None:
                return Term("least_squares", -label, bare(right), of_torch=False)
    return Term("least_squares", 0.0, base, of_torch=False)
