"""One script: what is rewritten in it, what is left alone, and why."""

from __future__ import annotations

import ast
import difflib
from dataclasses import dataclass, field
from io import StringIO

import libcst as cst

from ganloss_fast.adopt.edits import Remark
from ganloss_fast.adopt.names import Facts
from ganloss_fast.adopt.our_import import our_name, with_import
from ganloss_fast.adopt.rewriter import Rewriter
from ganloss_fast.adopt.unseen import unseen

NO_NEWLINE = "\\ No newline at end of file"


@dataclass
class Proposal:
    """A script as it is and as it may be."""

    path: str
    before: str
    after: str
    changes: list[Remark] = field(default_factory=list)
    left_alone: list[Remark] = field(default_factory=list)

    def diff(self) -> str:
        before, after = (StringIO(text).readlines() for text in (self.before, self.after))
        lines = difflib.unified_diff(before, after, self.path, self.path)
        ended = (line if line.endswith("\n") else f"{line}\n{NO_NEWLINE}\n" for line in lines)
        return "".join(ended)


def propose(source: str, path: str = "script.py") -> Proposal:
    """What may be rewritten in a script.

    Raises:
        SyntaxError: if it is no Python.
    """
    try:
        facts = Facts.of(cst.parse_module(source))
    except cst.ParserSyntaxError as error:
        raise SyntaxError(f"{path}: {error.message} (line {error.raw_line})") from None
    ours = our_name(facts)
    rewriter = Rewriter(facts, ours or "gf")
    module: cst.Module | None = facts.module.visit(rewriter)
    edits = rewriter.edits
    unseen(facts, edits)
    if module is not None and edits.needs_import:
        module = with_import(module, ours or "gf")
    proposal = Proposal(path, source, source)
    if edits.changes and ours is None:
        edits.leave_line(1, "both gf and ganloss_fast are names of the script's own")
    elif edits.changes and module is None:
        edits.leave_line(
            1,
            "torch is imported in functions or under conditions alone: import it at the head of "
            "the script, where ganloss_fast can be imported below it",
        )
    elif edits.changes and module is not None:
        proposal.after = module.code
        ast.parse(proposal.after)
        proposal.changes = edits.changes
    proposal.left_alone = edits.left_alone
    return proposal
