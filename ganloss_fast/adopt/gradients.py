"""Gradient penalties written by hand: ``autograd.grad`` with a graph, a norm, a mean.

What stays: how the points are drawn and how the critic is called. What is replaced: the gradient
and what is made of it, by :func:`ganloss_fast.penalty_from_logits`, whose graph leaves out what
sends only zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import libcst as cst
from libcst import matchers as m

from ganloss_fast.adopt.names import Names
from ganloss_fast.adopt.syntax import bare, code, names_in, small, value_of
from ganloss_fast.adopt.targets import constant
from ganloss_fast.adopt.terms import NotUnderstood


@dataclass(frozen=True)
class Gradient:
    """``autograd.grad(logits, points, ones, create_graph=True)``."""

    logits: str
    points: str
    samples: frozenset[str]  # names of what it is taken of and by, and of what that is made of


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
    return Gradient(code(outputs), code(inputs), frozenset(_made_of((outputs, inputs), names)))


def _made_of(parts: Sequence[cst.BaseExpression], names: Names) -> set[str]:
    """Every name in some expressions, and in those that these names are assigned."""
    found: set[str] = set()
    unread = list(parts)
    while unread:
        for name in names_in(unread.pop()) - found:
            found.add(name)
            unread += [binding.value for binding in names.bindings.get(name, ())]
    return found


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
        summed = None if value is None else names.operand_of(bare(value), "sum")
        if over is not None or summed is not None:
            raise NotUnderstood("the gradient is that of one number for the whole batch")
    inner = names.operand_of(outputs, "sum")
    return outputs if inner is None else inner
