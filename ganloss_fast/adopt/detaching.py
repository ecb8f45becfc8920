"""A fake that nobody detached: whether what the critic's step leaves in the generator is unread."""

from __future__ import annotations

import re

import libcst as cst
from libcst import matchers as m

from ganloss_fast.adopt.bindings import pairs
from ganloss_fast.adopt.effects import pure
from ganloss_fast.adopt.names import Names
from ganloss_fast.adopt.syntax import bare, code, names_in, small

_NOISE = re.compile(
    r"torch\.(rand|randn|randint|randperm|normal|empty|zeros|ones|full|arange|eye|tensor|from_numpy)"
    r"|numpy\.random\..*"
)
_VARIABLE = {"torch.autograd.Variable", "torch.autograd.variable.Variable"}
_HOOKS = re.compile(r"retain_grad\(|register_\w*hook|grad_norm|clip_grad|total_norm|\.watch\(")
_OPEN_USES = {"backward", "item", "detach", "data", "cpu"}


def reads_gradients(module: cst.Module, names: Names) -> bool:
    """Whether a script looks at gradients itself."""
    grads = m.findall(module, m.Attribute(attr=m.Name("grad")))
    own = any(not names.full_name(node).startswith("torch.autograd") for node in grads)
    by_text = "grad" in names.facts.strings  # getattr(p, "grad")
    return own or by_text or _HOOKS.search(module.code) is not None


def without_learners(sample: cst.BaseExpression, names: Names, depth: int = 8) -> bool:
    """Whether nothing that learns can stand in the arguments of a generator: noise, and labels."""
    sample = bare(sample)
    if depth == 0:
        return False
    match sample:
        case cst.Integer() | cst.Float() | cst.SimpleString():
            return True
        case cst.UnaryOperation(expression=inner):
            return without_learners(inner, names, depth - 1)
        case cst.BinaryOperation(left=left, right=right):
            sides = (left, right)
            return all(without_learners(side, names, depth - 1) for side in sides)
        case cst.Name():
            value = names.definition(sample)
            return value is not None and without_learners(value, names, depth - 1)
        case cst.Call():
            return _made_of_noise(sample, names, depth)
    return False


def _made_of_noise(call: cst.Call, names: Names, depth: int) -> bool:
    full = names.full_name(call.func)
    keywords = {a.keyword.value for a in call.args if a.keyword}
    if "requires_grad" in keywords or any(a.star for a in call.args):
        return False
    if _NOISE.fullmatch(full):
        return True
    if full in _VARIABLE or code(call.func).rsplit(".", 1)[-1].endswith("Tensor"):
        return all(without_learners(a.value, names, depth - 1) for a in call.args)
    if isinstance(call.func, cst.Attribute) and not full.startswith(("torch.", "numpy.")):
        shaping = call.func.attr.value in (
            "to",
            "cuda",
            "type",
            "float",
            "view",
            "reshape",
            "normal_",
        )
        arguments_plain = all(pure(a, names) for a in call.args)
        return shaping and arguments_plain and without_learners(call.func.value, names, depth - 1)
    return False


def share_weights(generator: str, critic: str, names: Names) -> bool:
    """Whether a critic and a generator may have weights in common, which would learn from a fake by
    both ways: one is given to the other, or both are given a network of the script."""
    of_generator, of_critic = (_given_to(network, names) for network in (generator, critic))
    if generator.rpartition(".")[2] in of_critic or critic.rpartition(".")[2] in of_generator:
        return True
    bases = {
        node.name.value
        for node in m.findall(names.facts.module, m.ClassDef())
        if isinstance(node, cst.ClassDef) and node.bases
    }
    made = [call for name in of_generator & of_critic for call in _assigned(name, names)]
    made_by = {names.full_name(call.func) for call in made if isinstance(call, cst.Call)}
    return any(function in bases or function.startswith("torch.nn.") for function in made_by)


def _given_to(network: str, names: Names) -> set[str]:
    """What stands in the values that a network, and what lies in it, are assigned."""
    return {name for value in _assigned(network, names) for name in names_in(value)}


def _assigned(text: str, names: Names) -> list[cst.BaseExpression]:
    """Every value of a name, of its attributes and its parts."""
    found = []
    for node in m.findall(names.facts.module, m.Assign()):
        assign = cst.ensure_type(node, cst.Assign)
        for target, value in (
            pair for part in assign.targets for pair in pairs(part.target, assign.value)
        ):
            if code(target) == text or code(target).startswith((f"{text}.", f"{text}[")):
                found.append(value)
    return found


def only_walked_back(statement: cst.CSTNode, names: Names) -> bool:
    """Whether a loss is walked back once and else only looked at."""
    match small(statement):
        case cst.Assign(targets=[cst.AssignTarget(target=cst.Name(name))]):
            pass
        case _:
            return False
    if names.uses(name) >= 1000 or len(names.bindings.get(name, [])) != 1:
        return False
    found = []
    for read in names.reads.get(name, ()):
        parent = names.facts.parents.get(read)
        if not isinstance(parent, cst.Attribute) or parent.attr.value not in _OPEN_USES:
            return False
        found.append(parent.attr.value)
    return found.count("backward") == 1


def zeroed_before_read(
    body: list[cst.CSTNode], k: int, generator: str, critic: str, names: Names
) -> bool:
    """Whether the generator's gradients are zeroed between a critic's loss and its own step.

    For this every optimizer of the script has to be seen: whose parameters it holds, and that all
    of the generator's are zeroed in this block.
    """
    owners = _owners(names)
    module = names.facts.module
    steps = {
        code(call.func.value)
        for call in m.findall(module, m.Call(func=m.Attribute(attr=m.Name("step"))))
        if isinstance(call, cst.Call) and isinstance(call.func, cst.Attribute)
    }
    steps = {name for name in steps if not re.search("sched|scaler", name, re.I)}
    if not steps <= owners.keys():
        return False
    if any(owners[name] not in ({generator}, {critic}) for name in owners):
        return False
    own = {name for name in owners if owners[name] == {generator}}
    zeros = _calls("zero_grad", own | {generator}, names)
    made = _calls("step", own, names)
    return bool(made) and all(_zeroed_first(body, k, step, zeros, names) for step in made)


def _calls(method: str, receivers: set[str], names: Names) -> list[cst.CSTNode]:
    found = m.findall(names.facts.module, m.Call(func=m.Attribute(attr=m.Name(method))))
    return [
        call
        for call in found
        if isinstance(call, cst.Call)
        and isinstance(call.func, cst.Attribute)
        and code(call.func.value) in receivers
    ]


def _zeroed_first(
    body: list[cst.CSTNode], k: int, step: cst.CSTNode, zeros: list[cst.CSTNode], names: Names
) -> bool:
    """Whether a step finds gradients that were zeroed in this round, and after statement k."""
    place = names.facts.place(step)
    above = {step, *names.facts.above(step)}
    j = next((j for j, statement in enumerate(body) if statement in above), None)
    if place is None or j is None or j == k:
        return False
    for zero in zeros:
        where = names.facts.place(zero)
        if where is None:
            continue
        in_this_block = where[0][0] is body[0] and where[1] < j and (where[1] > k or j < k)
        beside = place[0][0] is not body[0] and where[0][0] is place[0][0] and where[1] < place[1]
        if in_this_block or beside:
            return True
    return False


def _owners(names: Names) -> dict[str, set[str]]:
    """Whose parameters the optimizers of a script hold."""
    found: dict[str, set[str]] = {}
    module = names.facts.module
    for node in m.findall(module, m.Assign()):
        text = code(node)
        held = re.findall(r"([\w.]+)\.(?:named_)?parameters\(", text)
        if not held or not isinstance(node, cst.Assign) or not isinstance(node.value, cst.Call):
            continue
        for target in node.targets:
            found.setdefault(code(target.target), set()).update(held)
    return found
