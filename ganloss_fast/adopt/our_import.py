"""The import of this package in a script: under which name, and where."""

from __future__ import annotations

from collections.abc import Sequence

import libcst as cst

from ganloss_fast.adopt.bindings import Bindings
from ganloss_fast.adopt.names import Facts
from ganloss_fast.adopt.syntax import code

_IMPORT_TORCH = {"torch", "ganloss_fast"}


def our_name(facts: Facts) -> str | None:
    """Under which name the script may know the package; None if all are taken."""
    names = Bindings(None, facts.parents)
    facts.module.visit(names)
    for name in ("gf", "ganloss_fast"):
        bound = names.bindings.get(name, [])
        if not bound and name not in names.reads:
            return name
        own = [binding.node for binding in bound]
        if len(own) == 1 and _imports_us(own[0], name, facts):
            return name
    return None


def _imports_us(node: cst.CSTNode, name: str, facts: Facts) -> bool:
    """Whether a binding is ``import ganloss_fast as gf`` at the head of the script."""
    alias = facts.parents[node] if isinstance(node, cst.AsName) else node
    if not isinstance(alias, cst.ImportAlias):
        return False
    line = facts.parents[facts.parents[alias]]
    given = alias.asname is not None or name == "ganloss_fast"
    imported = isinstance(facts.parents[alias], cst.Import)
    at_head = isinstance(facts.parents.get(line), cst.Module)
    return imported and at_head and given and alias.evaluated_name == "ganloss_fast"


def with_import(module: cst.Module, ours: str) -> cst.Module | None:
    """The script with the import behind the first of torch's, and those that follow it.

    Not above: this package imports torch, and what a script does before it does so itself, such as
    ``os.environ["OMP_NUM_THREADS"] = "1"``, would come too late. None if only functions import it.
    """
    if any(_is_ours(line, ours) for line in module.body):
        return module
    body = _with_line(module.body, ours)
    return None if body is None else module.with_changes(body=body)


def _with_line(body: Sequence[cst.CSTNode], ours: str) -> list[cst.CSTNode] | None:
    """A block with the import in it, or in a ``try`` of it."""
    for k, statement in enumerate(body):
        if _roots(statement) & _IMPORT_TORCH:
            last = k
            while last + 1 < len(body) and _only_imports(body[last + 1]):
                last += 1
            asname = "" if ours == "ganloss_fast" else f" as {ours}"
            line = cst.parse_statement(f"import ganloss_fast{asname}")
            return [*body[: last + 1], line, *body[last + 1 :]]
        if isinstance(statement, (cst.Try, cst.With)) and isinstance(
            statement.body, cst.IndentedBlock
        ):
            within = _with_line(statement.body.body, ours)
            if within is not None:
                block = statement.body.with_changes(body=within)
                return [*body[:k], statement.with_changes(body=block), *body[k + 1 :]]
    return None


def _roots(statement: cst.CSTNode) -> set[str]:
    """The packages that a line imports from."""
    names: list[str] = []
    for part in statement.body if isinstance(statement, cst.SimpleStatementLine) else ():
        if isinstance(part, cst.Import):
            names += [code(alias.name) for alias in part.names]
        elif isinstance(part, cst.ImportFrom) and part.module is not None and not part.relative:
            names.append(code(part.module))
    return {name.partition(".")[0] for name in names}


def _only_imports(statement: cst.CSTNode) -> bool:
    return isinstance(statement, cst.SimpleStatementLine) and all(
        isinstance(part, (cst.Import, cst.ImportFrom)) for part in statement.body
    )


def _is_ours(line: cst.CSTNode, ours: str) -> bool:
    imports = line.body if isinstance(line, cst.SimpleStatementLine) else ()
    return any(
        isinstance(part, cst.Import)
        and any(alias.evaluated_name == "ganloss_fast" for alias in part.names)
        and any((alias.evaluated_alias or alias.evaluated_name) == ours for alias in part.names)
        for part in imports
    )
