"""Feature-matching loops: nested loops over zipped maps that add up mean absolute differences."""

from __future__ import annotations

import re
from dataclasses import dataclass

import libcst as cst
from libcst import matchers as m

from ganloss_fast.adopt.names import Names, plain
from ganloss_fast.adopt.roles import is_called_generated
from ganloss_fast.adopt.syntax import OURS, bare, code, small
from ganloss_fast.adopt.terms import NotUnderstood

_MAPS = re.compile(r"f_?maps?|feat|maps|hidden|activation|inter|\bfm\b|fm_", re.I)
_CRITIC = re.compile(r"(^|[._])(d|disc\w*|critic\w*|net_?d)(_\w+)?$", re.I)
_NO_LISTS = {"parameters", "values", "items", "keys", "children", "modules", "buffers"}


@dataclass(frozen=True)
class Matching:
    """``total += mean |a - b|`` over zipped maps."""

    total: str
    real: str
    fake: str
    detach_real: bool
    augmented: bool

    def written(self) -> str:
        detached = "" if self.detach_real else ", detach_real=False"
        call = f"{OURS}.feature_matching_loss({self.real}, {self.fake}{detached})"
        start = f"{self.total} +=" if self.augmented else f"{self.total} = {self.total} +"
        return f"{start} {call}"


@dataclass(frozen=True)
class _Zip:
    """``for a, b in zip(x, y)``, with or without ``[:-1]`` behind both."""

    entries: tuple[str, str]
    lists: tuple[cst.BaseExpression, cst.BaseExpression]
    part: str


def matching(loop: cst.For, names: Names) -> Matching | None:
    """What a loop computes, if it is a feature-matching loop and nothing else.

    Raises:
        NotUnderstood: if it looks like one and its maps are not seen to be a critic's.
    """
    outer = _zipped(loop, names)
    if outer is None:
        return None
    innermost, statement = outer, _only_statement(loop.body)
    if isinstance(statement, cst.For):
        inner = _zipped(statement, names)
        if inner is None or tuple(map(code, inner.lists)) != outer.entries:
            return None
        innermost, nested, statement = inner, statement, _only_statement(statement.body)
        if nested.orelse is not None or outer.part:
            return None
    added = _added(statement)
    if added is None:
        return None
    compared = _compared(added[1], names)
    if compared is None:
        return None
    detached = [text.removesuffix(".detach()") != text for text in compared]
    plain_names = tuple(text.removesuffix(".detach()") for text in compared)
    if set(plain_names) != set(innermost.entries) or all(detached):
        return None
    if loop.orelse is not None:
        return None
    hinted = _MAPS.search(code(loop)) is not None or innermost is not outer or any(detached)
    try:
        _check_maps(outer, innermost, names)
    except NotUnderstood:
        if hinted:
            raise
        return None
    lists = dict(zip(innermost.entries, outer.lists))
    texts = [_written(lists[name], innermost is not outer, innermost.part) for name in plain_names]
    swapped = detached[1] or (
        not detached[0] and is_called_generated(texts[0]) and not is_called_generated(texts[1])
    )
    real, fake = (texts[1], texts[0]) if swapped else (texts[0], texts[1])
    return Matching(added[0], real, fake, any(detached), isinstance(statement, cst.AugAssign))


def looks_like_matching(loop: cst.For, names: Names) -> bool:
    """Whether a loop adds up distances of what it goes through."""
    statement: cst.CSTNode | None = loop
    while isinstance(statement, cst.For):
        statement = _only_statement(statement.body)
    added = _added(statement)
    if added is None:
        return False
    calls = [node for node in m.findall(added[1], m.Call()) if isinstance(node, cst.Call)]
    within = [call for call in calls if _compared(call, names) is not None]
    called = {"zip", "range", "enumerate"}
    goes_through = isinstance(loop.iter, cst.Call) and code(loop.iter.func) in called
    hinted = _MAPS.search(code(loop)) is not None or "detach()" in code(added[1])
    return bool(within) and goes_through and hinted


def _zipped(loop: cst.For, names: Names) -> _Zip | None:
    match loop:
        case cst.For(
            target=cst.Tuple(
                elements=[
                    cst.Element(value=cst.Name(first)),
                    cst.Element(value=cst.Name(second)),
                ]
            ),
            iter=cst.Call(func=function, args=[x, y]),
        ) if names.full_name(function) == "builtins.zip" and plain(x) and plain(y):
            (one, part), (other, same) = _sliced(x.value), _sliced(y.value)
            return _Zip((first, second), (one, other), part) if part == same else None
    return None


def _sliced(expression: cst.BaseExpression) -> tuple[cst.BaseExpression, str]:
    """x and ``[:-1]`` of ``x[:-1]``."""
    if isinstance(expression, cst.Subscript):
        part = "[" + ", ".join(code(element) for element in expression.slice) + "]"
        if part == "[:-1]":
            return expression.value, part
    return expression, ""


def _written(maps: cst.BaseExpression, nested: bool, part: str) -> str:
    if nested and part:
        return f"[maps{part} for maps in {code(maps)}]"
    return code(maps) + part


def _only_statement(body: cst.BaseSuite) -> cst.CSTNode | None:
    if len(body.body) != 1:
        return None
    (statement,) = body.body
    return small(statement) or statement


def _added(statement: cst.CSTNode | None) -> tuple[str, cst.BaseExpression] | None:
    """What is added to which name: ``total += x``, ``total = total + x``."""
    match statement:
        case cst.AugAssign(target=cst.Name(name), operator=cst.AddAssign(), value=value):
            return name, value
        case cst.Assign(
            targets=[cst.AssignTarget(target=cst.Name(name))],
            value=cst.BinaryOperation(
                left=cst.Name(again), operator=cst.Add(), right=value, lpar=[]
            ),
        ) if name == again:
            return name, value
    return None


def _compared(value: cst.BaseExpression, names: Names) -> tuple[str, str] | None:
    """The two sides of ``torch.mean(torch.abs(a - b))`` or ``F.l1_loss(a, b)``."""
    value = bare(value)
    if not isinstance(value, cst.Call):
        return None
    if names.function_of(value) == "l1" and len(value.args) == 2:
        if not all(plain(argument) for argument in value.args):
            return None
        return code(value.args[0].value), code(value.args[1].value)
    inner = names.mean_of(value)
    match None if inner is None else names.operand_of(inner, "abs"):
        case cst.BinaryOperation(left=left, operator=cst.Subtract(), right=right):
            return code(left), code(right)
    return None


# ---- whose maps they are -----------------------------------------------------------------------


def _check_maps(outer: _Zip, inner: _Zip, names: Names) -> None:
    """Refuses what is not two lists of one critic: tensors, weights, lists of unlike lengths."""
    entries = {*outer.entries, *inner.entries}
    if any(names.uses(name) != 1 or len(names.bindings[name]) != 1 for name in entries):
        raise NotUnderstood("what the loop goes through is read elsewhere, too")
    if not _of_one_critic(outer, inner, names):
        raise NotUnderstood(
            "it is not seen that these are the feature maps of one critic, in two lists of one "
            "length: if so, gf.feature_matching_loss(real_maps, fake_maps) is the loop in one call"
        )


def _of_one_critic(outer: _Zip, inner: _Zip, names: Names) -> bool:
    first, second = outer.lists
    if not isinstance(first, cst.Name) or not isinstance(second, cst.Name):
        return False
    sources = _sources(first, names, 4), _sources(second, names, 4)
    functions = {source.partition(" ")[0] for found in sources for source in found}
    if not sources[0] or not sources[1] or len(functions) != 1:
        return False
    if sources[0] != sources[1] and any(":" in source for source in sources[0] | sources[1]):
        return False  # a part of one list, and not of the other
    both_named = all(_MAPS.search(name) for name in (first.value, second.value))
    if not both_named and (sources[0] != sources[1] or len(sources[0]) != 1):
        return False
    called = " ".join((first.value, second.value, *outer.entries, *inner.entries))
    (function,) = functions
    named = _MAPS.search(called) is not None or _CRITIC.search(function) is not None
    return named and function.rsplit(".", 1)[-1] not in _NO_LISTS


def _sources(maps: cst.Name, names: Names, depth: int) -> set[str]:
    """The calls that lists come from, as function and place: those of a function's callers where
    they are its parameters. Empty where one of them is not seen."""
    if depth == 0 or any(_is_changed(read, names) for read in names.reads.get(maps.value, ())):
        return set()
    found = _unpacked(maps, names)
    if found is not None:
        return {found}
    bindings = names.bindings.get(maps.value, [])
    if len(bindings) != 1 or not isinstance(bindings[0].node, cst.Param):
        return set()
    return _handed_over(maps.value, names, depth)


def _is_changed(maps: cst.Name, names: Names) -> bool:
    """Whether a list may be longer or shorter afterwards: ``maps.pop()``, ``del maps[0]``."""
    parents = names.facts.parents
    match parents.get(maps):
        case cst.Attribute():
            return True
        case cst.Subscript() as part:
            return isinstance(parents.get(part), (cst.AssignTarget, cst.AugAssign, cst.Del))
    return False


def _unpacked(maps: cst.Name, names: Names) -> str | None:
    """``discriminator 1`` of ``_, maps = discriminator(x)``."""
    value, place = names.definition(maps), ""
    if value is None:
        assign = names.nearest_assign(maps)
        if assign is None or not isinstance(assign.targets[0].target, cst.Tuple):
            return None
        elements = assign.targets[0].target.elements
        if any(isinstance(element, cst.StarredElement) for element in elements):
            return None
        places = [code(element.value) for element in elements]
        if maps.value not in places:
            return None  # it stands in a tuple in the tuple
        value, place = assign.value, f"{places.index(maps.value)} of {len(places)}"
    if isinstance(value, cst.Subscript):
        place = code(value).removeprefix(code(value.value))
        value = value.value
    if not isinstance(value, cst.Call) or not value.args:
        return None
    if names.full_name(value.func).startswith(("torch.", "numpy.", "builtins.")):
        return None
    return f"{code(value.func)} {place}"


def _handed_over(name: str, names: Names, depth: int) -> set[str]:
    """Where the arguments come from that every caller in the script gives for a parameter."""
    function = names.scope
    if not isinstance(function, cst.FunctionDef):
        return set()
    parameters = [parameter.name.value for parameter in function.params.params]
    position = parameters.index(name) if name in parameters else -1
    calls = [
        call
        for call in m.findall(names.facts.module, m.Call(func=m.Name(function.name.value)))
        if isinstance(call, cst.Call)
    ]
    everywhere = names.facts.names_of(names.facts.module)
    if position < 0 or not calls or everywhere.uses(function.name.value) != len(calls):
        return set()
    found: set[str] = set()
    for call in calls:
        by_name = {a.keyword.value: a.value for a in call.args if a.keyword}
        placed = call.args[position].value if position < len(call.args) else None
        given = by_name.get(name, placed)
        if not isinstance(given, cst.Name) or any(argument.star for argument in call.args):
            return set()
        caller = names.facts.names_at(call)
        sources = _sources(given, caller, depth - 1)
        if not sources:
            return set()
        found |= sources
    return found
