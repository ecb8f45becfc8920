"""The command: ``python -m ganloss_fast adopt PATH [--write]``."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path

from ganloss_fast.adopt.script import Proposal, propose

SKIPPED = {"site-packages", "node_modules", "build", "__pycache__"}
BACKUP = ".orig"


def scripts_below(path: Path) -> Iterator[Path]:
    """The file itself, or every Python file of a folder, hidden and installed ones left out."""
    if path.is_file():
        yield path
        return
    for found in sorted(path.rglob("*.py")):
        parts = found.relative_to(path).parts
        if not any(part in SKIPPED or part.startswith(".") for part in parts):
            yield found


def described(proposal: Proposal) -> str:
    """The diff, what each change gives, and what was left alone."""
    lines = [proposal.diff()] if proposal.changes else []
    lines += [f"{proposal.path}:{c.line}: {c.text}" for c in proposal.changes]
    lines += [f"{proposal.path}:{c.line}: left alone: {c.text}" for c in proposal.left_alone]
    return "\n".join(lines)


def encoding_of(path: Path) -> str:
    """What a script says in its first lines, ``# -*- coding: latin-1 -*-``, or UTF-8."""
    with path.open("rb") as file:
        return tokenize.detect_encoding(file.readline)[0]


def read(path: Path) -> str:
    with path.open(encoding=encoding_of(path), newline="") as file:
        return file.read()


def write(path: Path, proposal: Proposal) -> Path:
    """Keeps the script as ``script.py.orig`` and puts the new one in its place in one move.

    Raises:
        FileExistsError: if there is such a backup already.
    """
    path = path.resolve()  # a link stays one
    encoding = encoding_of(path)
    backup = path.with_name(path.name + BACKUP)
    with backup.open("x", encoding=encoding, newline="") as file:
        file.write(proposal.before)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(handle, "w", encoding=encoding, newline="") as file:
        file.write(proposal.after)
    os.chmod(temporary, path.stat().st_mode)
    os.replace(temporary, path)
    return backup


def _reason(error: Exception) -> str:
    expected = isinstance(error, (OSError, SyntaxError, UnicodeDecodeError))
    return str(error) if expected else f"{type(error).__name__}: {error}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints what would change; with ``--write`` changes it. 1 where a file could not be read."""
    parser = argparse.ArgumentParser(
        prog="python -m ganloss_fast adopt",
        description="Shows, as a diff, where a training script can use ganloss_fast with the same "
        "values and gradients. Nothing is changed without --write.",
    )
    parser.add_argument("path", type=Path, help="a script, or a folder of scripts")
    parser.add_argument(
        "--write", action="store_true", help=f"change the files; the old one stays as *{BACKUP}"
    )
    chosen = parser.parse_args(arguments)
    if not chosen.path.exists():
        parser.error(f"{chosen.path} does not exist")
    failed, changed = 0, 0
    for path in scripts_below(chosen.path):
        try:
            proposal = propose(read(path), str(path))
            if text := described(proposal):
                print(text)
            changed += bool(proposal.changes)
            if chosen.write and proposal.changes:
                print(f"{path}: changed; the old one is {write(path, proposal)}")
        except FileExistsError as error:
            failed += 1
            print(f"{path}: not changed: {error.filename} is there already", file=sys.stderr)
        except Exception as error:  # of one script: the others are read all the same
            failed += 1
            print(f"{path}: not read: {_reason(error)}", file=sys.stderr)
    if not changed:
        print("Nothing found that could be rewritten.")
    elif not chosen.write:
        print(f"{changed} file(s) would change: --write changes them and keeps *{BACKUP}.")
    return 1 if failed else 0
