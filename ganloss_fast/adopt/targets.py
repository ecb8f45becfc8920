"""Targets that are constant for certain: what they are filled with, and that nobody changes it."""

from __future__ import annotations

import libcst as cst

from ganloss_fast.adopt.effects import pure
from ganloss_fast.adopt.names import Names, plain
from ganloss_fast.adopt.syntax import bare, code, small

_FILLED = {"ones": 1.0, "ones_like": 1.0, "zeros": 0.0, "zeros_like": 0.0}
_UNCHANGED = {"to", "cuda", "cpu", "type", "type_as", "float", "detach", "expand_as", "expand"}
_READ_ONLY = {"size", "dim", "numel", "shape", "dtype", "device", "is_cuda", "ndim"}
_LIKE = {"torch.ones_like", "torch.zeros_like", "torch.full_like", "torch.rand_like"}
_VARIABLE = {"torch.autograd.Variable", "torch.autograd.variable.Variable"}
_EMPTY = {"torch.empty", "torch.empty_like"}


def constant(expression: cst.BaseExpression, names: Names, depth: int = 8) -> float | None:
    """The one value of a tensor's elements: ``torch.ones_like(x)``, ``torch.full(size, 0.9)``.

    Of a name, if its value is seen and nothing can have changed it since.
    """
    if depth == 0:
        return None
    if isinstance(expression, cst.Name) and not expression.lpar:
        value = names.once(expression.value)
        if value is not None and _untouched(expression.value, names, depth):
            return constant(value, names, depth - 1)
        return _filled_before(expression, names, depth)
    expression = bare(expression)
    match expression:
        case cst.BinaryOperation(left=left, operator=cst.Multiply(), right=right):
            factor, other = _value(left, names, depth), _value(right, names, depth)
            return None if factor is None or other is None else factor * other
        case cst.IfExp(test=test, body=one, orelse=other) if pure(test, names):
            values = {constant(side, names, depth - 1) for side in (one, other)}
            return values.pop() if len(values) == 1 else None
        case cst.Call():
            return _constant_call(expression, names, depth)
    return None


def _value(expression: cst.BaseExpression, names: Names, depth: int) -> float | None:
    found = names.number_of(expression)
    return constant(expression, names, depth - 1) if found is None else found


def _constant_call(call: cst.Call, names: Names, depth: int) -> float | None:
    keywords = {a.keyword.value: a.value for a in call.args if a.keyword}
    positional = [a.value for a in call.args if plain(a)]
    if "out" in keywords or any(a.star for a in call.args):
        return None
    if "requires_grad" in keywords and code(keywords["requires_grad"]) != "False":
        return None  # whoever asks for the target's gradient gets none from us
    name = names.full_name(call.func)
    inner = call.func.value if isinstance(call.func, cst.Attribute) else None
    attribute = call.func.attr.value if isinstance(call.func, cst.Attribute) else ""
    if name in _VARIABLE and len(positional) == 1:
        return constant(positional[0], names, depth - 1)
    if inner is not None and not name.startswith("torch."):
        if attribute in _UNCHANGED and all(pure(a, names) for a in call.args):
            return constant(inner, names, depth - 1)
        if attribute == "fill_" and len(positional) == len(call.args) == 1 and _fresh(inner, names):
            return names.number_of(positional[0])
    if not all(pure(argument, names) for argument in call.args):
        return None
    if name.startswith("torch.") and name.removeprefix("torch.") in _FILLED:
        return _FILLED[name.removeprefix("torch.")]
    if name in ("torch.full", "torch.full_like"):
        value = keywords.get("fill_value", positional[1] if len(positional) > 1 else None)
        return None if value is None else names.number_of(value)
    if inner is not None and attribute in ("new_ones", "new_zeros") and pure(inner, names):
        return 1.0 if attribute == "new_ones" else 0.0
    return None


def _fresh(tensor: cst.BaseExpression, names: Names) -> bool:
    """Whether a tensor is made there and then, without a draw: ``Tensor(n, 1)``."""
    if not isinstance(tensor, cst.Call) or not all(pure(a, names) for a in tensor.args):
        return False
    full = names.full_name(tensor.func)
    last = code(tensor.func).rsplit(".", 1)[-1]
    return full in _EMPTY or last.endswith("Tensor") or last in ("new", "new_empty")


# ---- what else happens to a target -------------------------------------------------------------


def _untouched(name: str, names: Names, depth: int) -> bool:
    """Whether a tensor is only ever a target, or asked for its shape."""
    if depth < 0 or names.looks_names_up:
        return False
    return all(_harmless(read, names, depth) for read in names.reads.get(name, ()))


def _harmless(read: cst.CSTNode, names: Names, depth: int) -> bool:
    """Whether what reads a tensor leaves it as it is, and keeps no other name for it."""
    parents = names.facts.parents
    while True:
        node, parent = read, parents.get(read)
        if isinstance(parent, cst.Attribute):
            called = parents.get(parent)
            if parent.attr.value in _READ_ONLY:
                return True
            if parent.attr.value not in _UNCHANGED or not isinstance(called, cst.Call):
                return False
            read = called
            continue
        if isinstance(parent, (cst.BinaryOperation, cst.UnaryOperation, cst.Comparison)):
            return True  # another tensor
        if isinstance(parent, cst.Arg):
            call = parents[parent]
            if not isinstance(call, cst.Call) or parent.star:
                return False
            if names.full_name(call.func) in _VARIABLE:
                read = call
                continue
            return _only_reads(call, parent, names)
        if isinstance(parent, (cst.Assign, cst.AnnAssign)) and parent.value is node:
            return _alias(parent, names, depth)
        return False


def _only_reads(call: cst.Call, argument: cst.Arg, names: Names) -> bool:
    keyword = argument.keyword.value if argument.keyword else ""
    full = names.full_name(call.func)
    if full == "torch.autograd.grad":
        return keyword == "grad_outputs" or (not keyword and argument in call.args[2:3])
    kind = names.function_of(call)
    return full in _LIKE or (kind not in ("", "relu"))


def _alias(statement: cst.Assign | cst.AnnAssign, names: Names, depth: int) -> bool:
    """Whether the other name that a tensor is given leaves it as it is, too."""
    if isinstance(statement, cst.Assign) and len(statement.targets) != 1:
        return False
    target = statement.targets[0].target if isinstance(statement, cst.Assign) else statement.target
    if not isinstance(target, cst.Name) or len(names.bindings.get(target.value, [])) != 1:
        return False
    return _untouched(target.value, names, depth - 1)


# ---- label.fill_(0.0), between two uses ---------------------------------------------------------


def _filled_before(name: cst.Name, names: Names, depth: int) -> float | None:
    """What a target holds that is filled again and again, in the statements of one block alone."""
    place = names.facts.place(name)
    if place is None or names.looks_names_up:
        return None
    body, k = place
    found: dict[int, float | None] = {}  # what the tensor holds below a statement
    for binding in names.bindings.get(name.value, ()):
        where = names.facts.place(binding.target)
        line = None if where is None else small(where[0][where[1]])
        if where is None or where[0][0] is not body[0] or line is not binding.node:
            return None
        if not isinstance(binding.node, cst.Assign) or len(binding.node.targets) != 1:
            return None
        found[where[1]] = constant(binding.value, names, depth - 1)
    uses: list[int] = []
    for read in names.reads.get(name.value, ()):
        where = names.facts.place(read)
        if where is None or where[0][0] is not body[0]:
            return None
        line = small(where[0][where[1]])
        match line:
            case cst.Expr(value=cst.Call(func=cst.Attribute(value=filled, attr=cst.Name("fill_")))):
                if filled is read and isinstance(line.value, cst.Call):
                    arguments = line.value.args
                    value = names.number_of(arguments[0].value) if len(arguments) == 1 else None
                    if value is None:
                        return None
                    found[where[1]] = value
                    continue
        if line is None or not _harmless(read, names, 0):
            return None
        uses.append(where[1])
    above = [j for j in found if j < k]
    if not above or not all(_walked_back(body, uses, j, found) for j in found):
        return None
    return found[max(above)]


def _walked_back(
    body: list[cst.CSTNode], uses: list[int], fill: int, found: dict[int, float | None]
) -> bool:
    """Whether the losses of a target were walked back before it was filled anew: autograd keeps
    it until then."""
    line = small(body[fill])
    if isinstance(line, cst.Assign):
        return True
    held = max((j for j in found if j < fill), default=-1)
    since = [j for j in uses if held < j < fill]
    return not since or any(".backward(" in code(body[j]) for j in range(max(since), fill))
