"""What is made of a gradient, step by step: its squares, its norms, and the penalty on them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Literal

import libcst as cst

from ganloss_fast.adopt.names import Names, plain
from ganloss_fast.adopt.syntax import OURS, bare, code, number


@dataclass(frozen=True)
class Stage:
    """How far a gradient has come on its way to a penalty, and whether samples are its rows."""

    kind: Literal["gradient", "squares", "sums of squares", "norms"]
    per_sample: bool = False
    eps: float = 0.0
    samples: frozenset[str] = frozenset()  # names of tensors with a row for each of the rows


Stages = Mapping[str, Stage]


def stage(expression: cst.BaseExpression, known: Stages, names: Names) -> Stage | None:
    """What an expression is, by what is known of names; None if it is nothing of the kind."""
    expression = bare(expression)
    if isinstance(expression, cst.Name):
        return known.get(expression.value)
    if (flat := _flattened(expression, names)) is not None:
        found = stage(flat[0], known, names)
        if found is None or found.kind not in ("gradient", "squares"):
            return None
        rows = flat[1]
        if rows is not None and not _counts_samples(rows, found.samples | known.keys(), names):
            return None
        return replace(found, per_sample=True)
    if (inner := names.square_of(expression)) is not None:
        found = stage(inner, known, names)
        return _next(found, "gradient", "squares")
    if (normed := _norm_of(expression, names)) is not None:
        return _next(stage(normed, known, names), "gradient", "norms")
    if (rooted := names.operand_of(expression, "sqrt")) is not None:
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


def _flattened(
    expression: cst.BaseExpression, names: Names
) -> tuple[cst.BaseExpression, cst.BaseExpression | None] | None:
    """x of ``x.view(x.size(0), -1)``, ``x.reshape(n, -1)``, ``x.flatten(1)``, and the number of
    rows where it is given."""
    match expression:
        case cst.Call(
            func=cst.Attribute(value=value, attr=cst.Name("view" | "reshape")), args=[rows, last]
        ) if code(last.value) == "-1":
            return bare(value), rows.value
        case cst.Call(func=cst.Attribute(value=value, attr=cst.Name("flatten")), args=[first]) if (
            code(first.value) == "1"
        ):
            return bare(value), None
        case cst.Call(func=function, args=[argument, first]) if (
            names.full_name(function) == "torch.flatten" and code(first.value) == "1"
        ):
            return bare(argument.value), None
    return None


_FIRST_SIZE = re.compile(r"([\w.]+)(?:\.size\(0\)|\.size\(\)\[0\]|\.shape\[0\])|len\(([\w.]+)\)")


def _counts_samples(
    rows: cst.BaseExpression, samples: AbstractSet[str], names: Names, follow: bool = True
) -> bool:
    """Whether a number is the first of the sizes of a tensor that the gradient is made of."""
    if isinstance(rows, cst.Name) and follow:
        value = names.definition(rows)
        return value is not None and _counts_samples(value, samples, names, follow=False)
    found = _FIRST_SIZE.fullmatch(code(rows).replace(" ", ""))
    return found is not None and (found[1] or found[2]).partition(".")[0] in samples


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
