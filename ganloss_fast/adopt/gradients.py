"""Gradient penalties written by hand: ``autograd.grad`` with a graph, a norm, a mean.

What stays: how the points are drawn and how the critic is called. What is replaced: the gradient
and what is made of it, by :func:`ganloss_fast.penalty_from_logits`, whose graph leaves out what
sends only zeros.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import libcst as cst
from libcst import matchers as m

from ganloss_fast.adopt.names import Names, plain
from ganloss_fast.adopt.syntax import OURS, bare, code, number, small, value_of
from ganloss_fast.adopt.targets import constant
from ganloss_fast.adopt.terms import NotUnderstood


@dataclass(frozen=True)
class Gradient:
    """``autograd.grad(logits, points, ones, create_graph=True)``."""

    logits: str
    points: str


_ORDER = ("outputs", "inputs", "grad_outputs", "retain_graph", "create_graph")
_TRUE = ("retain_graph", "create_graph", "only_inputs")


def is_gradient(expression: cst.CSTNode, names: Names) -> bool:
    """Whether an expression is a call of autograd.grad that may make a graph."""
    return (
        isinstance(expression, cst.Call)
        and names.full_name(expression.func) == "torch.autograd.grad"
        and any(a.keyword and a.keyword.value == "create_graph" for a in expression.args)
        and not any(
            a.keyword and a.keyword.value == "create_graph" and code(a.value) == "False"
            for a in expression.args
        )
    )


def gradient(statement: cst.CSTNode, names: Names) -> tuple[str, Gradient] | None:
    """The name and the gradient of ``g = grad(...)[0]`` or ``(g,) = grad(...)``.

    Raises:
        NotUnderstood: if it makes a graph, in a form that cannot be taken over.
    """
    value = value_of(statement)
    call = None if value is None else bare(value)
    first = isinstance(call, cst.Subscript) and code(call.slice[0]) == "0" and len(call.slice) == 1
    if isinstance(call, cst.Subscript):
        call = bare(call.value)
    if call is None or not is_gradient(call, names):
        return None
    assert isinstance(call, cst.Call)
    match small(statement):
        case cst.Assign(targets=[cst.AssignTarget(target=cst.Name(name))]) if first:
            return name, _gradient(call, names)
        case cst.Assign(
            targets=[
                cst.AssignTarget(
                    target=cst.Tuple(elements=[cst.Element(value=cst.Name(name))])
                    | cst.List(elements=[cst.Element(value=cst.Name(name))])
                )
            ],
            value=cst.Call(),
        ):
            return name, _gradient(call, names)
    raise NotUnderstood("what becomes of the gradient is not followed further")


def _gradient(call: cst.Call, names: Names) -> Gradient:
    if any(argument.star for argument in call.args):
        raise NotUnderstood("the arguments of the gradient are behind a star")
    given = {
        argument.keyword.value if argument.keyword else _ORDER[k]: argument.value
        for k, argument in enumerate(call.args)
        if argument.keyword or k < len(_ORDER)
    }
    if not {"outputs", "inputs"} <= given.keys() <= {*_ORDER, *_TRUE} or len(given) < len(
        call.args
    ):
        raise NotUnderstood("the gradient is taken with options of its own")
    if any(code(given[name]) != "True" for name in _TRUE if name in given):
        raise NotUnderstood("the gradient is taken with options of its own")
    outputs, inputs = bare(given["outputs"]), bare(given["inputs"])
    if isinstance(inputs, (cst.Tuple, cst.List)):
        if len(inputs.elements) != 1 or isinstance(inputs.elements[0], cst.StarredElement):
            raise NotUnderstood("the gradient is taken with respect to several inputs")
        inputs = inputs.elements[0].value
    if not isinstance(inputs, (cst.Name, cst.Attribute, cst.Subscript)):
        raise NotUnderstood("the gradient is taken with respect to an expression")
    if isinstance(inputs, cst.Name) and _is_list(names.definition(inputs)):
        raise NotUnderstood("the gradient is taken with respect to several inputs")
    if "grad_outputs" in given and code(given["grad_outputs"]) != "None":
        if constant(given["grad_outputs"], names) != 1.0:
            raise NotUnderstood("grad_outputs are not seen to be ones")
    else:
        outputs = _summed(outputs, names)
    if m.findall(outputs, m.NamedExpr() | m.Await() | m.Yield()):
        raise NotUnderstood("something is assigned or awaited within the gradient")
    return Gradient(code(outputs), code(inputs))


def _is_list(value: cst.BaseExpression | None) -> bool:
    match value:
        case cst.List() | cst.Tuple() | cst.ListComp():
            return True
        case cst.Call(func=cst.Name("list" | "tuple")):
            return True
        case cst.Call(func=cst.Attribute(attr=cst.Name("parameters"))):
            return True
    return False


def _summed(outputs: cst.BaseExpression, names: Names) -> cst.BaseExpression:
    """What is summed in front of the gradient, since logits have to be given one by one.

    Raises:
        NotUnderstood: for a mean, whose gradient is smaller by the number of samples.
    """
    value = names.definition(outputs) if isinstance(outputs, cst.Name) else None
    for expression in (outputs, value):
        if expression is None:
            continue
        over = names.mean_of(bare(expression))
        if over is not None or (value is not None and _inside_sum(bare(value), names) is not None):
            raise NotUnderstood("the gradient is that of one number for the whole batch")
    inner = _inside_sum(outputs, names)
    return outputs if inner is None else inner


def _inside_sum(expression: cst.BaseExpression, names: Names) -> cst.BaseExpression | None:
    match expression:
        case cst.Call(func=cst.Attribute(value=value, attr=cst.Name("sum")), args=[]):
            return value
        case cst.Call(func=function, args=[argument]) if names.full_name(function) == "torch.sum":
            return argument.value if plain(argument, "input") else None
    return None


# ---- what is made of a gradient ----------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """How far a gradient has come on its way to a penalty, and whether samples are its rows."""

    kind: Literal["gradient", "squares", "sums of squares", "norms"]
    per_sample: bool = False
    eps: float = 0.0


Stages = Mapping[str, Stage]


def stage(expression: cst.BaseExpression, known: Stages, names: Names) -> Stage | None:
    """What an expression is, by what is known of names; None if it is nothing of the kind."""
    expression = bare(expression)
    if isinstance(expression, cst.Name):
        return known.get(expression.value)
    if (inner := flattened(expression, names)) is not None:
        found = stage(inner, known, names)
        flat = found is not None and found.kind in ("gradient", "squares")
        return replace(found, per_sample=True) if found is not None and flat else None
    if (inner := names.square_of(expression)) is not None:
        found = stage(inner, known, names)
        return _next(found, "gradient", "squares")
    if (normed := _norm_of(expression, names)) is not None:
        return _next(stage(normed, known, names), "gradient", "norms")
    if (rooted := _root_of(expression, names)) is not None:
        return _root(rooted, known, names)
    return _sums(expression, known, names)


def _next(
    found: Stage | None,
    before: str,
    after: Literal["squares", "sums of squares", "norms"],
) -> Stage | None:
    return replace(found, kind=after) if found is not None and found.kind == before else None


def _norm_of(expression: cst.BaseExpression, names: Names) -> cst.BaseExpression | None:
    """x of ``x.norm(2, dim=1)`` and ``torch.norm(x, 2, 1)``."""
    match expression:
        case cst.Call(func=function, args=[value, *args]) if (
            names.full_name(function) in ("torch.norm", "torch.linalg.vector_norm")
            and plain(value)
            and _over_dimension_1(args, 2)
        ):
            return value.value
        case cst.Call(func=cst.Attribute(value=inner, attr=cst.Name("norm")), args=args) if (
            _over_dimension_1(args, 2)
        ):
            return inner
    return None


def _root_of(expression: cst.BaseExpression, names: Names) -> cst.BaseExpression | None:
    match expression:
        case cst.Call(func=function, args=[argument]) if names.full_name(function) == "torch.sqrt":
            return bare(argument.value)
        case cst.Call(func=cst.Attribute(value=value, attr=cst.Name("sqrt")), args=[]):
            return bare(value)
    return None


def _root(summed: cst.BaseExpression, known: Stages, names: Names) -> Stage | None:
    eps = 0.0
    if isinstance(summed, cst.BinaryOperation) and isinstance(summed.operator, cst.Add):
        eps, summed = number(summed.right) or -1.0, bare(summed.left)
    found = _next(stage(summed, known, names), "sums of squares", "norms")
    return None if found is None or eps < 0 else replace(found, eps=eps)


def _sums(expression: cst.BaseExpression, known: Stages, names: Names) -> Stage | None:
    """``g.pow(2).sum(1)``, ``torch.sum(g ** 2, dim=1)``, ``g.square().sum([1, 2, 3])``."""
    args: Sequence[cst.Arg]
    match expression:
        case cst.Call(func=function, args=[value, *args]) if names.full_name(
            function
        ) == "torch.sum" and plain(value):
            squares = value.value
        case cst.Call(func=cst.Attribute(value=squares, attr=cst.Name("sum")), args=args):
            pass
        case _:
            return None
    found = _next(stage(squares, known, names), "squares", "sums of squares")
    if found is None or any(not plain(a, a.keyword.value if a.keyword else "") for a in args):
        return None
    over = [code(argument.value).replace(" ", "") for argument in args]
    by = {argument.keyword.value for argument in args if argument.keyword}
    if over in (["[1,2,3]"], ["(1,2,3)"]) and by <= {"dim", "axis"} and not found.per_sample:
        return replace(found, per_sample=True)
    return found if _over_dimension_1(args, None) else None


def _over_dimension_1(args: Sequence[cst.Arg], power: int | None) -> bool:
    texts = [code(a.value) for a in args if not a.keyword]
    by_name = {a.keyword.value: code(a.value) for a in args if a.keyword}
    if power is not None:
        first = by_name.pop("p", by_name.pop("ord", texts.pop(0) if len(texts) > 0 else "2"))
        if first not in ("2", "2.0"):
            return False
    dimension = by_name.pop("dim", by_name.pop("axis", texts.pop(0) if texts else ""))
    return dimension in ("1", "(1,)", "[1]") and not texts and not by_name


def flattened(expression: cst.BaseExpression, names: Names) -> cst.BaseExpression | None:
    """x of ``x.view(x.size(0), -1)``, ``x.reshape(n, -1)``, ``x.flatten(1)``."""
    match expression:
        case cst.Call(
            func=cst.Attribute(value=value, attr=cst.Name("view" | "reshape")), args=[rows, last]
        ) if code(last.value) == "-1" and _counts_samples(rows.value, names):
            return bare(value)
        case cst.Call(func=cst.Attribute(value=value, attr=cst.Name("flatten")), args=[first]) if (
            code(first.value) == "1"
        ):
            return bare(value)
        case cst.Call(func=function, args=[argument, first]) if (
            names.full_name(function) == "torch.flatten" and code(first.value) == "1"
        ):
            return bare(argument.value)
    return None


def _counts_samples(rows: cst.BaseExpression, names: Names) -> bool:
    """Whether a number is the first of a tensor's sizes."""
    if isinstance(rows, cst.Name):
        value = names.definition(rows)
        return (
            value is not None and not isinstance(value, cst.Name) and _counts_samples(value, names)
        )
    text = code(rows).replace(" ", "")
    return (
        re.fullmatch(r"[\w.]+(\.size\(0\)|\.size\(\)\[0\]|\.shape\[0\])|len\([\w.]+\)", text)
        is not None
    )


def penalty(
    expression: cst.BaseExpression, known: Stages, names: Names
) -> tuple[Stage, float] | None:
    """The norms and their target, for the mean of squared distances of norms to a target."""
    inner = names.mean_of(bare(expression))
    if inner is None:
        return None
    base = names.square_of(inner)
    if isinstance(base, cst.BinaryOperation) and isinstance(base.operator, cst.Subtract):
        for norms, target in ((base.left, base.right), (base.right, base.left)):
            found, value = stage(norms, known, names), names.number_of(target)
            if found is not None and found.kind == "norms" and value:
                return found, value
        return None
    found = stage(inner, known, names)
    return (found, 0.0) if found is not None and found.kind == "sums of squares" else None


def written(norms: Stage, target: float) -> str:
    """The penalty as a value of ours."""
    if norms.per_sample and target == 0.0:
        return f"{OURS}.R1(gamma=2.0)"  # gamma / 2 times the mean square
    options = ["weight=1.0"]
    options += [] if target == 1.0 else [f"target={target!r}"]
    options += [] if norms.per_sample else ['norm="channel"']
    options += [f"eps={norms.eps!r}"] if norms.eps else []
    return f"{OURS}.WGANGP({', '.join(options)})"
