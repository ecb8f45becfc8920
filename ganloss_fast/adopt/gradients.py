"""Gradient penalties written by hand: ``autograd.grad`` with a graph, a norm, a mean.

What stays: how the points are drawn and how the critic is called. What is replaced: the gradient
and what is made of it, by :func:`ganloss_fast.penalty_from_logits`, whose graph leaves out what
sends only zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import libcst as cst

from ganloss_fast.adopt.names import Names, bare, code, number
from ganloss_fast.adopt.terms import NotUnderstood, constant


@dataclass(frozen=True)
class Gradient:
    """``autograd.grad(logits, points, ones, create_graph=True)``."""

    logits: str
    points: str


def gradient(expression: cst.BaseExpression, names: Names) -> Gradient | None:
    """The call of autograd.grad that an expression is, with or without ``[0]``.

    Raises:
        NotUnderstood: if it makes a graph, in a form that cannot be taken over.
    """
    expression = bare(expression)
    if isinstance(expression, cst.Subscript):
        expression = expression.value
    if not isinstance(expression, cst.Call):
        return None
    if names.full_name(expression.func) != "torch.autograd.grad":
        return None
    order = ("outputs", "inputs", "grad_outputs", "retain_graph", "create_graph")
    given = {
        argument.keyword.value if argument.keyword else order[k]: argument.value
        for k, argument in enumerate(expression.args)
        if argument.keyword or k < len(order)
    }
    if "create_graph" not in given or code(given["create_graph"]) != "True":
        return None
    outputs, inputs = bare(given["outputs"]), bare(given["inputs"])
    if isinstance(inputs, (cst.Tuple, cst.List)) and len(inputs.elements) != 1:
        raise NotUnderstood("the gradient is taken with respect to several inputs")
    if isinstance(inputs, (cst.Tuple, cst.List)):
        inputs = inputs.elements[0].value
    if "grad_outputs" in given:
        if constant(given["grad_outputs"], names) != 1.0:
            raise NotUnderstood("grad_outputs are not seen to be ones")
    else:
        outputs = _summed(outputs, names)
    return Gradient(code(outputs), code(inputs))


def _summed(outputs: cst.BaseExpression, names: Names) -> cst.BaseExpression:
    """What is summed in front of the gradient, since logits have to be given one by one."""
    match outputs:
        case cst.Call(func=cst.Attribute(value=value, attr=cst.Name("sum")), args=[]):
            return value
        case cst.Call(func=function, args=[argument]) if names.full_name(function) == "torch.sum":
            return argument.value
    return outputs


@dataclass(frozen=True)
class Norms:
    """The norm of a gradient: for each sample if it was flattened, else over dimension 1 alone."""

    name: str
    per_sample: bool
    eps: float = 0.0


def penalty(expression: cst.BaseExpression, names: Names) -> tuple[Norms, float] | None:
    """The norms and their target, for the mean of squared distances of norms to a target."""
    inner = names.mean_of(bare(expression))
    if inner is None:
        return None
    base = names.square_of(inner)
    if isinstance(base, cst.BinaryOperation) and isinstance(base.operator, cst.Subtract):
        target, norms = number(base.right), _norms(_looked_up(base.left, names), names)
        return None if target is None or norms is None else (norms, target)
    norms = _sum_of_squares(inner, names)
    return None if norms is None else (norms, 0.0)


def written(norms: Norms, target: float) -> str:
    """The penalty as a value of ours."""
    if norms.per_sample and target == 0.0:
        return "gf.R1(gamma=2.0)"  # gamma / 2 times the mean square
    options = ["weight=1.0"]
    options += [] if target == 1.0 else [f"target={target:g}"]
    options += [] if norms.per_sample else ['norm="channel"']
    options += [f"eps={norms.eps:g}"] if norms.eps else []
    return f"gf.WGANGP({', '.join(options)})"


def _looked_up(expression: cst.BaseExpression, names: Names) -> cst.BaseExpression:
    expression = bare(expression)
    value = names.value_of(expression) if isinstance(expression, cst.Name) else None
    return expression if value is None else bare(value)


def _norms(expression: cst.BaseExpression, names: Names) -> Norms | None:
    """``g.norm(2, dim=1)``, or ``torch.sqrt(torch.sum(g ** 2, dim=1) + eps)``."""
    match expression:
        case cst.Call(func=cst.Attribute(value=value, attr=cst.Name("norm")), args=args) if (
            _over_dimension_1(args, 2)
        ):
            return _flat(value)
        case cst.Call(func=function, args=[value, *args]) if names.full_name(function) in (
            "torch.norm",
            "torch.linalg.vector_norm",
        ) and _over_dimension_1(args, 2):
            return _flat(value.value)
        case cst.Call(func=function, args=[argument]) if names.full_name(function) == "torch.sqrt":
            return _root(bare(argument.value), names)
        case cst.Call(func=cst.Attribute(value=value, attr=cst.Name("sqrt")), args=[]):
            return _root(bare(value), names)
    return None


def _root(summed: cst.BaseExpression, names: Names) -> Norms | None:
    eps = 0.0
    if isinstance(summed, cst.BinaryOperation) and isinstance(summed.operator, cst.Add):
        eps, summed = number(summed.right) or -1.0, bare(summed.left)
    norms = _sum_of_squares(summed, names)
    return None if norms is None or eps < 0 else replace(norms, eps=eps)


def _sum_of_squares(expression: cst.BaseExpression, names: Names) -> Norms | None:
    """``g.pow(2).sum(1)``, ``torch.sum(g ** 2, dim=1)``, ``g.square().sum([1, 2, 3])``."""
    args: Sequence[cst.Arg]
    match expression:
        case cst.Call(func=function, args=[value, *args]) if (
            names.full_name(function) == "torch.sum"
        ):
            squared = bare(value.value)
        case cst.Call(func=cst.Attribute(value=value, attr=cst.Name("sum")), args=args):
            squared = bare(value)
        case _:
            return None
    over = [code(argument.value).replace(" ", "") for argument in args]
    if over in (["[1,2,3]"], ["(1,2,3)"]):
        norms = _flat(names.square_of(squared))
        return None if norms is None else replace(norms, per_sample=True)
    if not _over_dimension_1(args, None):
        return None
    if (base := names.square_of(squared)) is not None:
        return _flat(base)
    flat = flattened(squared)  # squares, flattened
    return None if flat is None else _flat(names.square_of(flat), per_sample=True)


def _over_dimension_1(args: Sequence[cst.Arg], power: int | None) -> bool:
    texts = [code(a.value) for a in args if not a.keyword]
    by_name = {a.keyword.value: code(a.value) for a in args if a.keyword}
    if power is not None:
        first = by_name.pop("p", by_name.pop("ord", texts.pop(0) if len(texts) > 0 else "2"))
        if first not in ("2", "2.0"):
            return False
    dimension = by_name.pop("dim", by_name.pop("axis", texts.pop(0) if texts else ""))
    return dimension in ("1", "(1,)", "[1]") and not texts and not by_name


def _flat(value: cst.BaseExpression | None, per_sample: bool = False) -> Norms | None:
    """Of a name, or of a name that is flattened there and then."""
    if value is None:
        return None
    inner = flattened(bare(value))
    if isinstance(inner, cst.Name):
        return Norms(inner.value, True)
    return Norms(value.value, per_sample) if isinstance(value, cst.Name) else None


def flattened(expression: cst.BaseExpression) -> cst.BaseExpression | None:
    """x of ``x.view(x.size(0), -1)``, ``x.reshape(n, -1)``, ``x.flatten(1)``."""
    match expression:
        case cst.Call(
            func=cst.Attribute(value=value, attr=cst.Name("view" | "reshape")), args=[_, last]
        ) if code(last.value) == "-1":
            return bare(value)
        case cst.Call(func=cst.Attribute(value=value, attr=cst.Name("flatten")), args=[first]) if (
            code(first.value) == "1"
        ):
            return bare(value)
    return None
