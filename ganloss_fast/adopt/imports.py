"""Losses of packages and codebases that have a drop-in: by their imports, names and signatures."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import libcst as cst

from ganloss_fast.adopt.drop_ins import (
    DIFFERENT,
    DROP_INS,
    OWN_CALLS,
    OWN_CLASSES,
    OWN_FUNCTIONS,
    OWN_IMPORTS,
    names_of,
)
from ganloss_fast.adopt.edits import Edits, has_comments
from ganloss_fast.adopt.names import Names
from ganloss_fast.adopt.syntax import code

_ASKS = {"builtins.isinstance", "builtins.issubclass"}


def read(statement: cst.SimpleStatementLine, names: Names, edits: Edits) -> None:
    """The import with its losses taken from a drop-in, what else it imports from where it was."""
    if len(statement.body) != 1:
        return
    node = statement.body[0]
    if isinstance(node, cst.Import):
        _speak_of_module(node, statement, edits)
    if not isinstance(node, cst.ImportFrom):
        return
    module = "" if node.module is None else code(node.module)
    if isinstance(node.names, cst.ImportStar):
        if module in DROP_INS and not node.relative:
            edits.leave(statement, f"all names are imported; {_drop_in(DROP_INS[module])}")
        return
    drop_in = None if node.relative else DROP_INS.get(module)
    if drop_in is None:
        _speak_of_imported(node, module, statement, edits)
        return
    ours = []
    for alias in node.names:
        if code(alias.name) not in names_of(drop_in):
            continue
        why = DIFFERENT.get(drop_in, {}).get(code(alias.name)) or _is_built_upon(alias, names)
        if why:
            edits.leave(statement, f"{_drop_in(drop_in)}, whose {code(alias.name)} {why}")
        else:
            ours.append(alias)
    theirs = [alias for alias in node.names if alias not in ours]
    if ours and theirs and has_comments(node):
        edits.leave(statement, f"comments stand between the names; {_drop_in(drop_in)}")
    elif ours:
        edits.change(statement, _split(statement, node, ours, theirs, drop_in), "drop-in")


def _is_built_upon(alias: cst.ImportAlias, names: Names) -> str:
    """Why a class stays that the script asks for, or derives one from: it may be another's then."""
    for read in names.reads.get(alias.evaluated_alias or alias.evaluated_name, ()):
        for above in names.facts.above(read):
            if isinstance(above, cst.ClassDef) and read in {base.value for base in above.bases}:
                return "may be built otherwise than the one that a class here derives from"
            if isinstance(above, cst.Call) and names.full_name(above.func) in _ASKS:
                return "is another class than the one that is asked for here"
    return ""


def _split(
    statement: cst.SimpleStatementLine,
    node: cst.ImportFrom,
    ours: list[cst.ImportAlias],
    theirs: list[cst.ImportAlias],
    drop_in: ModuleType,
) -> cst.FlattenSentinel[cst.SimpleStatementLine]:
    """One line for the drop-in and one for the original, each with what it had of space."""
    module = cst.parse_expression(drop_in.__name__)
    assert isinstance(module, (cst.Name, cst.Attribute))
    if not theirs:
        return cst.FlattenSentinel(
            [statement.with_changes(body=[node.with_changes(module=module)])]
        )
    names = ", ".join(code(alias.with_changes(comma=cst.MaybeSentinel.DEFAULT)) for alias in ours)
    first = cst.parse_statement(f"from {drop_in.__name__} import {names}")
    assert isinstance(first, cst.SimpleStatementLine)
    assert isinstance(node.names, Sequence)
    comma = node.names[-1].comma  # none behind the last one, unless there was one
    rest = node.with_changes(names=[*theirs[:-1], theirs[-1].with_changes(comma=comma)])
    trailing = statement.trailing_whitespace  # maybe with a word for a linter
    return cst.FlattenSentinel(
        [
            first.with_changes(leading_lines=statement.leading_lines, trailing_whitespace=trailing),
            statement.with_changes(body=[rest], leading_lines=[]),
        ]
    )


# ---- what is only spoken of --------------------------------------------------------------------


def _drop_in(drop_in: ModuleType | str) -> str:
    """Of a module, or of one of ours and what else it may be: ``hifigan (or bigvgan, vits)``."""
    name = drop_in if isinstance(drop_in, str) else drop_in.__name__.rpartition(".")[2]
    return f"there is a drop-in: ganloss_fast.compat.{name}"


def _speak_of_module(node: cst.Import, statement: cst.SimpleStatementLine, edits: Edits) -> None:
    for alias in node.names:
        if code(alias.name) in DROP_INS:
            why = f"imported as a module; {_drop_in(DROP_INS[code(alias.name)])}"
            edits.leave(statement, why)


def _speak_of_imported(
    node: cst.ImportFrom, module: str, statement: cst.SimpleStatementLine, edits: Edits
) -> None:
    """Names that codebases give their losses, from modules that may be the user's own."""
    if module.startswith("ganloss_fast") or isinstance(node.names, cst.ImportStar):
        return
    names = {code(alias.name) for alias in node.names}
    for wanted, parts, drop_in in OWN_IMPORTS:
        if wanted <= names and (not parts or any(part in module for part in parts)):
            edits.leave(
                statement,
                f"{', '.join(sorted(wanted))} may be a codebase's or your own: if the former, "
                f"{_drop_in(drop_in)}",
            )
            return


def speak_of_own(node: cst.FunctionDef | cst.ClassDef, edits: Edits) -> None:
    """A loss that the script defines under a codebase's name, with its signature."""
    if edits.touched(node) or edits.changed_within(node):
        return
    name = node.name.value
    if isinstance(node, cst.FunctionDef):
        found = OWN_FUNCTIONS.get((name, _parameters(node)))
    else:
        made = [
            part
            for part in node.body.body
            if isinstance(part, cst.FunctionDef) and part.name.value == "__init__"
        ]
        first = _parameters(made[0])[1:3] if made else ()
        found = OWN_CLASSES.get((name, first))
    if found is not None:
        edits.leave_line(
            edits.line(node),
            f"{name} has the name and arguments of a codebase's; {_drop_in(found)}",
        )


def speak_of_called(call: cst.Call, names: Names, edits: Edits) -> None:
    """A loss of a module that was imported as a whole: ``networks.GANLoss("lsgan")``."""
    if not isinstance(call.func, cst.Attribute) or call.func.attr.value not in OWN_CALLS:
        return
    full = names.full_name(call.func)
    if full.rpartition(".")[0] in DROP_INS:
        return  # of which the import speaks
    if full and not full.startswith(("self.", "ganloss_fast")):
        edits.leave(
            call,
            f"{code(call.func)} may be a codebase's or your own: if the former, "
            f"{_drop_in(OWN_CALLS[call.func.attr.value])}",
        )


def _parameters(function: cst.FunctionDef) -> tuple[str, ...]:
    given = (*function.params.posonly_params, *function.params.params)
    return tuple(parameter.name.value for parameter in given)
