"""Past which statements logits may be moved: none of them may act on what they are made of."""

from __future__ import annotations

from collections.abc import Sequence

import libcst as cst
from libcst import matchers as m

from ganloss_fast.adopt.effects import pure
from ganloss_fast.adopt.names import Names
from ganloss_fast.adopt.syntax import assigned_name, names_in

_OF_ITS_OWN = (cst.BinaryOperation, cst.UnaryOperation, cst.Comparison, cst.BaseNumber)
_VIEWS = {"cpu", "cuda", "detach", "expand_as", "flatten", "float", "reshape", "squeeze", "to"}
_VIEWS |= {"type_as", "unsqueeze", "view"}
_MODES = {"set_grad_enabled", "set_default_dtype", "set_autocast_enabled"}


def may_pass(logits: cst.BaseExpression, statements: Sequence[cst.CSTNode], names: Names) -> bool:
    """Whether logits are below some statements what they are above them.

    A statement may assign another name, and call what it likes, if none of the logits' names stands
    in it. A call that is not known to compute alone may moreover change what it is handed, which
    may be the logits' memory under another name, and what it sees without being handed it.
    """
    named = names_in(logits)
    kin: set[str] | None = None
    for statement in statements:
        within = names_in(statement)
        if assigned_name(statement) is None or within & (named | _MODES):
            return False
        if pure(statement, names):
            continue
        if kin is None:
            kin = _kin(_read_in(logits, names), names)
        if within & kin or _is_seen_elsewhere(logits, names):
            return False
    return True


def _kin(named: set[str], names: Names) -> set[str]:
    """The names that may share their memory with some: what is made of them, and what they are made
    of where that is seen; an unknown call may return what it was given, or something of its own."""
    assigned = [
        (name, binding.value, _read_in(binding.value, names))
        for name, bindings in names.bindings.items()
        for binding in bindings
        if not isinstance(binding.value, _OF_ITS_OWN)
    ]
    kin = set(named)
    while True:
        made_of = {name for name, value, read in assigned if read & kin and _lends(value, names)}
        for name, value, read in assigned:
            if name in kin and _lends(value, names) and pure(value, names):
                made_of |= read
        if made_of <= kin:
            return kin
        kin |= made_of


def _lends(value: cst.BaseExpression, names: Names) -> bool:
    """Whether a value may lie in the memory of what it is made of."""
    if not isinstance(value, cst.Call) or not pure(value, names):
        return True
    return isinstance(value.func, cst.Attribute) and value.func.attr.value in _VIEWS


def _read_in(node: cst.CSTNode, names: Names) -> set[str]:
    parts = m.findall(node, m.Name())
    return {part.value for part in parts if isinstance(part, cst.Name) and names.is_read(part)}


def _is_seen_elsewhere(logits: cst.BaseExpression, names: Names) -> bool:
    """Whether another function sees a name that logits are made of, and may give it another value,
    or change the one it has, when it is called."""
    return any(
        name not in names.bindings or names.is_read_within(name) for name in _read_in(logits, names)
    )
