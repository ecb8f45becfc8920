"""One script: what is rewritten in it, what is left alone, and why."""

from __future__ import annotations

import ast
import difflib
from dataclasses import dataclass, field

import libcst as cst
from libcst.codemod import CodemodContext
from libcst.codemod.visitors import AddImportsVisitor

from ganloss_fast.adopt.bindings import Bindings
from ganloss_fast.adopt.edits import Remark
from ganloss_fast.adopt.names import Facts
from ganloss_fast.adopt.rewriter import Rewriter
from ganloss_fast.adopt.unseen import unseen


@dataclass
class Proposal:
    """A script as it is and as it may be."""

    path: str
    before: str
    after: str
    changes: list[Remark] = field(default_factory=list)
    left_alone: list[Remark] = field(default_factory=list)

    def diff(self) -> str:
        return "".join(
            difflib.unified_diff(
                self.before.splitlines(keepends=True),
                self.after.splitlines(keepends=True),
                self.path,
                self.path,
            )
        )


def propose(source: str, path: str = "script.py") -> Proposal:
    """What may be rewritten in a script.

    Raises:
        SyntaxError: if it is no Python.
    """
    try:
        facts = Facts.of(cst.parse_module(source))
    except cst.ParserSyntaxError as error:
        raise SyntaxError(f"{path}: {error.message} (line {error.raw_line})") from None
    ours = _our_name(facts)
    rewriter = Rewriter(facts, ours or "gf")
    module = facts.module.visit(rewriter)
    edits = rewriter.edits
    unseen(facts, edits)
    proposal = Proposal(path, source, source)
    if edits.changes and ours is None:
        edits.leave_line(1, "both gf and ganloss_fast are names of the script's own")
    elif edits.changes:
        proposal.after = _with_import(module, ours or "gf", edits.needs_import)
        ast.parse(proposal.after)
        proposal.changes = edits.changes
    proposal.left_alone = edits.left_alone
    return proposal


def _our_name(facts: Facts) -> str | None:
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


def _with_import(module: cst.Module, ours: str, needed: bool) -> str:
    context = CodemodContext()
    if needed:
        asname = None if ours == "ganloss_fast" else ours
        AddImportsVisitor.add_needed_import(context, "ganloss_fast", asname=asname)
    return AddImportsVisitor(context).transform_module(module).code
