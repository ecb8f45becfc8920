"""Criteria that a script makes itself: of which kind they are, where nothing can change that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import libcst as cst
from libcst import matchers as m

from ganloss_fast.adopt.bindings import Binding, Bindings
from ganloss_fast.adopt.syntax import code

KINDS = {
    "torch.nn.BCEWithLogitsLoss": "bce",
    "torch.nn.MSELoss": "least_squares",
    "torch.nn.BCELoss": "bce of probabilities",
    "torch.nn.L1Loss": "l1",
    "torch.nn.ReLU": "relu",
}
_STATE = {"reduction", "weight", "pos_weight"}  # what a criterion is changed by
_NO_KIND = ""
_LOSSES = {"bce", "least_squares"}


class Criteria:
    """Those that are made without options, and under one name as one kind:
    ``self.criterion = nn.MSELoss()``.

    An attribute counts by its last name, whoever it is of: ``trainer.criterion`` may be
    ``self.criterion``, and what a class body defines is an attribute of its instances.
    """

    def __init__(
        self,
        module: cst.Module,
        parents: Mapping[cst.CSTNode, cst.CSTNode],
        full_name: Callable[[cst.CSTNode], str],
        strings: set[str],
    ) -> None:
        self._parents, self._full_name = parents, full_name
        self._made: set[tuple[str, cst.CSTNode | None]] = set()
        self._kinds: dict[str, set[str]] = {}
        found = Bindings(None, parents)
        module.visit(found)
        for binding in found.everything:
            self._add(binding)
        self._by_text = strings | _keywords(module) if found.sets_attributes else set[str]()
        self._rebound = found.rebinds_names
        self._changed = any(map(_changes_a_state, found.everything)) or _STATE & self._by_text

    def kind_of(self, function: cst.BaseExpression) -> str:
        """Of what is called: empty if it is not certainly one of the criteria."""
        kinds = self._kinds.get(_key(function), {_NO_KIND})
        if len(kinds) != 1 or self._changed or _key(function).removeprefix(".") in self._by_text:
            return _NO_KIND
        (kind,) = kinds
        if isinstance(function, cst.Name):
            return _NO_KIND if self._rebound else kind
        if m.findall(function, m.Subscript() | m.Call()):
            return _NO_KIND  # what lies in a list or a dict may be exchanged there
        return kind if (code(function), self._owner(function)) in self._made else _NO_KIND

    def is_doubtful(self, function: cst.BaseExpression) -> bool:
        """Whether what is called may be a criterion, and may be another one or a changed one."""
        kinds = self._kinds.get(_key(function), set()) - {_NO_KIND}
        return bool(kinds & _LOSSES) and not self.kind_of(function)

    def _add(self, binding: Binding) -> None:
        target, kind = binding.target, self._kind_made(binding.value)
        self._kinds.setdefault(_key(target), set()).add(kind)
        if isinstance(target, cst.Name) and self._is_in_class_body(binding.node):
            self._kinds.setdefault(f".{target.value}", set()).add(kind)
        if isinstance(target, cst.Attribute):  # criterion.forward = ...
            self._kinds.setdefault(_key(target.value), set()).add(_NO_KIND)
        self._made.add((code(target), self._owner(target)))

    def _kind_made(self, value: cst.BaseExpression) -> str:
        while m.matches(value, m.Call(func=m.Attribute(attr=m.Name("to") | m.Name("cuda")))):
            value = cst.ensure_type(cst.ensure_type(value, cst.Call).func, cst.Attribute).value
        if not isinstance(value, cst.Call) or value.args:
            return _NO_KIND
        return KINDS.get(self._full_name(value.func), _NO_KIND)

    def _owner(self, target: cst.BaseExpression) -> cst.CSTNode | None:
        """The class whose ``self`` an attribute is of."""
        classes = (node for node in self._above(target) if isinstance(node, cst.ClassDef))
        return next(classes, None) if code(target).startswith("self.") else None

    def _is_in_class_body(self, node: cst.CSTNode) -> bool:
        scopes = (cst.FunctionDef, cst.ClassDef, cst.Lambda)
        around = next((above for above in self._above(node) if isinstance(above, scopes)), None)
        return isinstance(around, cst.ClassDef)

    def _above(self, node: cst.CSTNode) -> Iterator[cst.CSTNode]:
        while (node := self._parents.get(node)) is not None:  # type: ignore[assignment]
            yield node


def _key(target: cst.CSTNode) -> str:
    return f".{target.attr.value}" if isinstance(target, cst.Attribute) else code(target)


def _keywords(module: cst.Module) -> set[str]:
    """Those of calls, which may become texts: ``def configure(module, **options)``."""
    arguments = m.findall(module, m.Arg(keyword=m.Name()))
    return {code(cst.ensure_type(a, cst.Arg).keyword or a) for a in arguments}


def _changes_a_state(binding: Binding) -> bool:
    """``crit.reduction = ...``, whatever ``crit`` may be another name for. Of ``self`` it is an
    attribute of a class of the script's own, and a layer's weight is another one's, or new."""
    target, value = binding.target, binding.value
    if not isinstance(target, cst.Attribute) or code(target.value) == "self":
        return False
    of_a_layer = m.matches(value, m.Attribute(attr=m.Name("weight"))) or m.matches(
        value, m.Call(func=m.Name("Parameter") | m.Attribute(attr=m.Name("Parameter")))
    )
    return target.attr.value in _STATE and not of_a_layer
