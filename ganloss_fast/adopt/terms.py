"""One term of a loss: what phi is applied to which logits, with which target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import libcst as cst
from libcst import matchers as m

from ganloss_fast.adopt.names import Names, bare, number

Kind = Literal["bce", "least_squares", "hinge", "linear"]


@dataclass(frozen=True)
class Term:
    """``mean phi(logits)``: towards a label for bce and least_squares, to 1 or -1 for hinge."""

    kind: Kind
    label: float
    logits: cst.BaseExpression
    has_target: bool = False  # written with a target; a bare mean square may be anything


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
    return None if inner is None else mean_of(inner, names)


def _criterion(kind: Kind, call: cst.Call, names: Names) -> Term:
    if len(call.args) != 2 or any(argument.keyword for argument in call.args):
        raise NotUnderstood("the criterion has options (weight, reduction, ...)")
    logits, target = (argument.value for argument in call.args)
    label = constant(target, names)
    if label is None:
        raise NotUnderstood("the target is no constant that can be seen")
    return Term(kind, label, bare(logits), has_target=True)


def mean_of(inner: cst.BaseExpression, names: Names) -> Term | None:
    """The term that the mean of an expression is."""
    if isinstance(inner, cst.Call):
        kind = names.function_of(inner)
        if kind == "relu" and len(inner.args) == 1:
            return _hinge(bare(inner.args[0].value))
        if kind == "softplus" and len(inner.args) == 1:
            argument = bare(inner.args[0].value)
            if m.matches(argument, m.UnaryOperation(operator=m.Minus())):
                logits = bare(cst.ensure_type(argument, cst.UnaryOperation).expression)
                return Term("bce", 1.0, logits)
            return Term("bce", 0.0, argument)
    squared = names.square_of(inner)
    if squared is not None:
        return _least_squares(squared)
    return Term("linear", 0.0, inner)


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


def _least_squares(base: cst.BaseExpression) -> Term:
    """``x - c``, ``c - x``, ``x + c`` or ``x``."""
    match base:
        case cst.BinaryOperation(left=left, operator=cst.Subtract(), right=right):
            if (label := number(right)) is not None:
                return Term("least_squares", label, bare(left))
            if (label := number(left)) is not None:
                return Term("least_squares", label, bare(right))
        case cst.BinaryOperation(left=left, operator=cst.Add(), right=right):
            if (label := number(right)) is not None:
                return Term("least_squares", -label, bare(left))
            if (label := number(left)) is not None:
                return Term("least_squares", -label, bare(right))
    return Term("least_squares", 0.0, base)


# ---- constant targets --------------------------------------------------------------------------

_FILLED = {"ones": 1.0, "ones_like": 1.0, "zeros": 0.0, "zeros_like": 0.0}
_UNCHANGED = {"to", "cuda", "type", "type_as", "float", "detach", "expand_as", "requires_grad_"}


def constant(expression: cst.BaseExpression, names: Names, depth: int = 8) -> float | None:
    """The one value of a tensor's elements: ``torch.ones_like(x)``, ``torch.full(size, 0.9)``."""
    expression = bare(expression)
    if depth == 0:
        return None
    if isinstance(expression, (cst.Name, cst.Attribute)):
        value = names.value_of(expression)
        return None if value is None else constant(value, names, depth - 1)
    match expression:
        case cst.BinaryOperation(left=left, operator=cst.Multiply(), right=right):
            factors = [
                number(side) if number(side) is not None else constant(side, names, depth - 1)
                for side in (left, right)
            ]
            known = [factor for factor in factors if factor is not None]
            return known[0] * known[1] if len(known) == 2 else None
        case cst.Call():
            return _constant_call(expression, names, depth)
    return None


def _constant_call(call: cst.Call, names: Names, depth: int) -> float | None:
    name = names.full_name(call.func)
    plain = name.removeprefix("torch.")
    if name.startswith("torch.") and plain in _FILLED:
        return _FILLED[plain]
    if name in ("torch.full", "torch.full_like") and len(call.args) >= 2:
        return number(call.args[1].value)
    if name in ("torch.autograd.Variable", "torch.autograd.variable.Variable") and call.args:
        return constant(call.args[0].value, names, depth - 1)
    match call.func:
        case cst.Attribute(attr=cst.Name("new_ones")):
            return 1.0
        case cst.Attribute(attr=cst.Name("new_zeros")):
            return 0.0
        case cst.Attribute(attr=cst.Name("fill_")) if len(call.args) == 1:
            return number(call.args[0].value)
        case cst.Attribute(value=value, attr=cst.Name(attribute)) if attribute in _UNCHANGED:
            return constant(value, names, depth - 1)
    return None
