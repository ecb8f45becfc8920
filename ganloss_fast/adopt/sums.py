"""A sum of terms as one call: ``discriminator_loss``, ``generator_loss``, or one side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import libcst as cst

from ganloss_fast.adopt.names import Names
from ganloss_fast.adopt.syntax import OURS, bare, code, number
from ganloss_fast.adopt.terms import Term, mean_of, term


@dataclass(frozen=True)
class Summand:
    """A factor and what it multiplies: a term, or anything else."""

    factor: float
    content: Term | cst.BaseExpression
    source: str = ""  # the name that stood for it
    whole: cst.BaseExpression | None = None  # a term as it is written


def summands(
    expression: cst.BaseExpression, names: Names, expandable: frozenset[str] = frozenset()
) -> list[Summand]:
    """A sum, taken apart; names in ``expandable`` are replaced by what they were assigned.

    What holds no term stays in one piece, as it is written.
    """
    match expression:
        case cst.BinaryOperation(left=left, operator=cst.Add() | cst.Subtract(), right=right):
            sign = 1.0 if isinstance(expression.operator, cst.Add) else -1.0
            first = summands(left, names, expandable)
            both = [*first, *_times(sign, summands(right, names, expandable))]
            if any(isinstance(summand.content, Term) for summand in both):
                return both
        case cst.UnaryOperation(operator=cst.Minus(), expression=operand):
            return _scaled(-1.0, operand, expression, names, expandable)
        case cst.BinaryOperation(left=left, operator=cst.Multiply(), right=right):
            for factor, other in ((number(left), right), (number(right), left)):
                if factor is not None:
                    return _scaled(factor, other, expression, names, expandable)
        case cst.BinaryOperation(left=left, operator=cst.Divide(), right=right):
            divisor = number(right)
            if divisor:
                return _scaled(1.0 / divisor, left, expression, names, expandable)
        case cst.Name(value=name) if name in expandable:
            value = names.once(name)
            behind = [] if value is None else summands(value, names)
            if behind and all(isinstance(summand.content, Term) for summand in behind):
                return [replace(summand, source=name) for summand in behind]
    inner = names.mean_of(bare(expression))
    if isinstance(inner, cst.Name) and inner.value in expandable:
        value = names.once(inner.value)
        found = None if value is None else mean_of(bare(value), names)
        if found is not None and found.kind in ("bce", "hinge", "clamped hinge"):
            return [Summand(1.0, found, source=inner.value)]
    found = term(bare(expression), names)
    return [Summand(1.0, expression if found is None else found, whole=expression)]


def _scaled(
    factor: float,
    scaled: cst.BaseExpression,
    whole: cst.BaseExpression,
    names: Names,
    expandable: frozenset[str],
) -> list[Summand]:
    found = summands(scaled, names, expandable)
    if any(isinstance(summand.content, Term) for summand in found):
        return _times(factor, found)
    return [Summand(1.0, whole)]


def _times(factor: float, found: list[Summand]) -> list[Summand]:
    return [replace(summand, factor=factor * summand.factor) for summand in found]


def _number(value: float) -> str:
    return repr(float(value))


def _options(**values: str) -> str:
    return "".join(f", {name}={value}" for name, value in values.items() if value)


def _described(kind: str, real_label: float | None, fake_label: float | None) -> str:
    """The loss as a name, or as a value where its labels are not the usual ones."""
    usual = {"bce": (1.0, 0.0), "least_squares": (1.0, 0.0)}.get(kind)
    given = {"real_label": real_label, "fake_label": fake_label}
    odd = [
        f"{name}={_number(label)}"
        for (name, label), expected in zip(given.items(), usual or ())
        if label is not None and label != expected
    ]
    if not odd:
        return f'"{kind}"'
    name = {"bce": "BCE", "least_squares": "LeastSquares"}[kind]
    return f"{OURS}.{name}({', '.join(odd)})"


def call_of(real: Summand, fake: Summand, fake_first: bool) -> str:
    """Both terms in one call of ``discriminator_loss``."""
    r, f = real.content, fake.content
    assert isinstance(r, Term)
    assert isinstance(f, Term)
    kind = "wasserstein" if r.kind == "linear" else r.kind
    weights = (abs(real.factor), abs(fake.factor))
    options = _options(
        real_weight="" if weights[0] == 1.0 else _number(weights[0]),
        fake_weight="" if weights[1] == 1.0 else _number(weights[1]),
    )
    loss = _described(kind, r.label, f.label)
    logits = f"{code(r.logits)}, {code(f.logits)}, {loss}"
    if fake_first:  # critics run in the order that they ran in
        logits = f"fake={code(f.logits)}, real={code(r.logits)}, loss={loss}"
    return f"{OURS}.discriminator_loss({logits}{options})"


def side_of(found: Summand) -> str | None:
    """One term on its own; None where nothing is gained."""
    part = found.content
    assert isinstance(part, Term)
    if part.kind in ("linear", "clamped hinge") or found.factor <= 0:
        return None  # a mean is one operation already
    if part.kind == "least_squares" and not part.has_target:
        return None  # a mean square may be anything
    weight = _options(weight="" if found.factor == 1.0 else _number(found.factor))
    logits = code(part.logits)
    if part.kind == "hinge":
        return f'{OURS}.discriminator_side_loss({logits}, {part.label > 0}, "hinge"{weight})'
    if part.label == 0.0:
        return f'{OURS}.discriminator_side_loss({logits}, False, "{part.kind}"{weight})'
    loss = _described(part.kind, None, None)
    if part.label != 1.0:
        name = {"bce": "BCE", "least_squares": "LeastSquares"}[part.kind]
        loss = f"{OURS}.{name}(generator_label={_number(part.label)})"
    return f"{OURS}.generator_loss({logits}, {loss}{weight})"


def _contents(found: list[Summand]) -> Iterator[Term]:
    return (summand.content for summand in found if isinstance(summand.content, Term))


def without_means(found: list[Summand]) -> list[Summand]:
    """Means beside terms of another kind are no terms of the loss."""
    if all(term_.kind == "linear" for term_ in _contents(found)):
        return found
    return [
        replace(summand, content=summand.whole)
        if isinstance(summand.content, Term)
        and summand.content.kind == "linear"
        and summand.whole is not None
        and not summand.source
        else summand
        for summand in found
    ]


def pairs(found: list[Summand]) -> tuple[Summand, Summand] | None:
    """(real, fake), if exactly two summands are terms of one kind, one for each side."""
    both = [summand for summand in found if isinstance(summand.content, Term)]
    if len(both) != 2:
        return None
    first, second = both
    kinds = {term_.kind for term_ in _contents(both)}
    if len(kinds) != 1:
        return None
    if kinds == {"linear"}:
        if first.factor * second.factor >= 0:
            return None
        return (first, second) if first.factor < 0 else (second, first)
    if any((s.factor > 0) == term_.negated for s, term_ in zip(both, _contents(both))):
        return None
    labels = [term_.label for term_ in _contents(both)]
    if labels[0] == labels[1]:
        return None
    return (first, second) if labels[0] > labels[1] else (second, first)


def without(found: list[Summand], pair: tuple[Summand, Summand], call: str) -> str:
    """The sum again, with the call where the first of the two terms stood."""
    written = ""
    for summand in found:
        if summand is pair[0] or summand is pair[1]:
            written += f" + {call}" if call else ""
            call = ""
            continue
        rest = summand.content
        assert isinstance(rest, cst.BaseExpression)
        text = code(rest)
        if abs(summand.factor) != 1.0:
            if not isinstance(rest, (cst.Name, cst.Call, cst.Attribute, cst.Subscript)):
                text = f"({text})"  # a % b times 0.5
            text = f"{_number(abs(summand.factor))} * {text}"
        elif summand.factor < 0 and not getattr(rest, "lpar", ()):
            text = f"({text})" if isinstance(rest, cst.BinaryOperation) and not written else text
        written += f" {'+' if summand.factor > 0 else '-'} {text}"
    written = written.removeprefix(" + ")
    return "-" + written.removeprefix(" - ") if written.startswith(" - ") else written
