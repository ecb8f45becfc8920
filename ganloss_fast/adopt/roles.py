"""Who is who: which call is the critic's, which sample is generated, which sum is walked back."""

from __future__ import annotations

import re

import libcst as cst

from ganloss_fast.adopt.names import Names
from ganloss_fast.adopt.syntax import bare, code, names_in

_GENERATOR = re.compile(
    r"(^|\.)((net|model|module)_?)?(g|gen|generator)(_?(net|model|ema|[a-z]2[a-z]|[a-z]{2}|\d+))?$",
    re.I,
)
_GENERATED = re.compile(r"fake|gen(erated|_|s?$)|synth|y_?hat", re.I)
_LOSS = re.compile(r"loss|_step|critic|disc|adv", re.I)
_SHAPING = {"reshape", "view", "squeeze", "flatten"}
_SAME_SAMPLE = {"detach", "clone", "contiguous", "requires_grad_", "to", "cuda", "float"}
_GRAD_SCALING = {"scale"}
_BACKWARD = {"backward", "manual_backward"}


def is_generator(function: cst.CSTNode) -> bool:
    return _GENERATOR.search(code(function)) is not None


def is_called_generated(name: str) -> bool:
    return _GENERATED.search(name) is not None


def shaped(expression: cst.BaseExpression) -> cst.BaseExpression | None:
    """x of ``x.reshape(-1)`` and the like."""
    match expression:
        case cst.Call(func=cst.Attribute(value=value, attr=cst.Name(name))) if name in _SHAPING:
            return value
    return None


def critic_call(logits: cst.BaseExpression, names: Names) -> cst.Call | None:
    """The call that logits come from: ``D(x)``, reshaped or not, by another name or not."""
    for _ in range(8):
        if (inner := shaped(logits)) is not None:
            logits = inner
        elif isinstance(logits, cst.Name):
            value = names.definition(logits)
            if value is None:
                return None
            logits = value
        else:
            break
    if not isinstance(logits, cst.Call) or not logits.args or logits.args[0].star:
        return None
    full = names.full_name(logits.func)
    known = full.startswith(("torch.", "numpy.", "builtins."))
    return None if known or isinstance(logits.func, cst.Call) else logits


def is_generated(sample: cst.BaseExpression, names: Names, depth: int = 8) -> bool:
    """Whether a sample is, or is made from, what a generator returns."""
    sample = bare(sample)
    if depth == 0:
        return False
    if isinstance(sample, cst.Name):
        value = names.definition(sample)
        if value is not None:
            return is_generated(value, names, depth - 1)
        return is_called_generated(sample.value)
    if isinstance(sample, cst.Call):
        if is_generator(sample.func):
            return True
        if isinstance(sample.func, cst.Attribute) and sample.func.attr.value in _SAME_SAMPLE:
            return is_generated(sample.func.value, names, depth - 1)
        return any(is_generated(argument.value, names, depth - 1) for argument in sample.args)
    if isinstance(sample, cst.Attribute):
        if sample.attr.value == "data":
            return is_generated(sample.value, names, depth - 1)
        return is_called_generated(sample.attr.value)
    if isinstance(sample, (cst.Tuple, cst.List)):
        return any(is_generated(part.value, names, depth - 1) for part in sample.elements)
    if isinstance(sample, cst.Subscript):
        return is_generated(sample.value, names, depth - 1)
    return any(is_called_generated(name) for name in names_in(sample))


def calls_of_one_critic(
    first: cst.BaseExpression, second: cst.BaseExpression, names: Names
) -> tuple[cst.Call, cst.Call] | None:
    """The two calls that logits come from, if both are of the same network."""
    one, other = critic_call(first, names), critic_call(second, names)
    if one is None or other is None or code(one.func) != code(other.func):
        return None
    return one, other


def generated_side(calls: tuple[cst.Call, cst.Call], names: Names) -> int | None:
    """Which of a critic's two calls is on generated samples; None if that is not seen."""
    generated = [is_generated(call.args[0].value, names) for call in calls]
    return None if generated[0] == generated[1] else generated.index(True)


def named_side(first: cst.BaseExpression, second: cst.BaseExpression, names: Names) -> int | None:
    """Which of two logits are called generated, where the other ones are called real: by their
    own names, or by those of the lists that a loop takes them from."""
    called = [_called(logits, names) for logits in (first, second)]
    fake = [is_called_generated(text) for text in called]
    real = [re.search("real", text, re.I) is not None for text in called]
    if fake[0] == fake[1] or real[0] == real[1] or real[0] == fake[0]:
        return None
    return fake.index(True)


def _called(logits: cst.BaseExpression, names: Names) -> str:
    if not isinstance(logits, cst.Name):
        return ""
    bindings = names.bindings.get(logits.value, [])
    if len(bindings) != 1:
        return logits.value
    match bindings[0].node:
        case cst.For(
            target=cst.Tuple(elements=[one, other]),
            iter=cst.Call(func=function, args=[x, y]),
        ) if names.full_name(function) == "builtins.zip":
            source = {code(one.value): x, code(other.value): y}[logits.value].value
            return code(source) if isinstance(source, cst.Name) else logits.value
    return logits.value


# ---- whether a sum is a loss -------------------------------------------------------------------


def is_walked_back(
    expression: cst.CSTNode,
    names: Names,
    returned: bool = True,
    seen: frozenset[str] = frozenset(),
) -> bool:
    """Whether ``backward()`` of a sum is seen, or a function named as a loss returns it.

    ``returned``: whether the latter will do, where it may be anything that has a mean.
    """
    parents = names.facts.parents
    parent = parents.get(expression)
    while parent is not None:
        match parent:
            case cst.BinaryOperation() | cst.UnaryOperation() | cst.DictElement() | cst.Dict():
                pass
            case cst.Attribute(attr=cst.Name(attr)):
                return attr in _BACKWARD
            case cst.Arg():
                call = parents[parent]
                if not isinstance(call, cst.Call) or not isinstance(call.func, cst.Attribute):
                    return False
                if call.func.attr.value in _BACKWARD:
                    return True
                if call.func.attr.value not in _GRAD_SCALING:
                    return False
                parent = call
            case cst.Assign(targets=[cst.AssignTarget(target=cst.Name(name))]):
                return _name_walked_back(name, names, returned, seen)
            case cst.AnnAssign(target=cst.Name(name)) | cst.AugAssign(target=cst.Name(name)):
                return _name_walked_back(name, names, returned, seen)
            case cst.Return():
                scope = names.scope
                named = isinstance(scope, cst.FunctionDef) and _LOSS.search(scope.name.value)
                return returned and bool(named)
            case _:
                return False
        parent = parents.get(parent)
    return False


def _name_walked_back(name: str, names: Names, returned: bool, seen: frozenset[str]) -> bool:
    return name not in seen and any(
        is_walked_back(read, names, returned, seen | {name}) for read in names.reads.get(name, ())
    )
