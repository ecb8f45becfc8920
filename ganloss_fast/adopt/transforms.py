"""What is read by a compiler, or run by a transform of functions with tensors of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator

import libcst as cst
from libcst import matchers as m

from ganloss_fast.adopt.names import Facts
from ganloss_fast.adopt.syntax import code, names_in

_DECORATORS = re.compile(r"jit|script|compile|vmap|jacrev|jacfwd|func\.grad|numba|jax", re.I)
_FUNCTIONS = re.compile(
    r"torch\.(jit|func|fx|export|_dynamo|autograd\.functional|utils\.checkpoint)\..*"
    r"|torch\.(compile|vmap)|functorch\..*"
)
_UNRESOLVED = {"script", "trace", "compile", "vmap", "jacrev", "jacfwd", "checkpoint"}

Definition = cst.FunctionDef | cst.ClassDef


def transformed(facts: Facts) -> set[cst.CSTNode]:
    """Functions and classes of a script that a compiler or a transform is given, by a decorator, by
    their name or by that of an instance, and those whose names stand in one of them."""
    definitions: dict[str, list[Definition]] = {}
    for node in m.findall(facts.module, m.FunctionDef() | m.ClassDef()):
        if isinstance(node, (cst.FunctionDef, cst.ClassDef)):
            definitions.setdefault(node.name.value, []).append(node)
    names = set(_handed_over(facts))
    names |= {name for name, made in definitions.items() if any(map(_is_decorated, made))}
    found: set[cst.CSTNode] = set()
    while names:
        given = [node for name in names for node in definitions.get(name, ()) if node not in found]
        found.update(given)
        names = {name for node in given for name in names_in(node)}
    return found


def _is_decorated(definition: Definition) -> bool:
    return any(_DECORATORS.search(code(decorator.decorator)) for decorator in definition.decorators)


def _handed_over(facts: Facts) -> Iterator[str]:
    """The names in the arguments of a transform, and in the calls that they are assigned."""
    names: set[str] = set()
    for call in m.findall(facts.module, m.Call()):
        if isinstance(call, cst.Call) and _is_transform(call, facts):
            names |= {name for argument in call.args for name in names_in(argument)}
    yield from names
    for node in m.findall(facts.module, m.Assign(value=m.Call())) if names else ():
        made = cst.ensure_type(node, cst.Assign)
        if any(code(part.target).rpartition(".")[2] in names for part in made.targets):
            yield from names_in(cst.ensure_type(made.value, cst.Call).func)


def _is_transform(call: cst.Call, facts: Facts) -> bool:
    full = facts.full_name(call.func)
    if _FUNCTIONS.fullmatch(full):
        return True
    return not full and code(call.func).rpartition(".")[2] in _UNRESOLVED
