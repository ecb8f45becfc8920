"""Docstrings hold together: sections stand at the margin, and formulas are there."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import ganloss_fast

PACKAGE = Path(ganloss_fast.__file__).parent
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)

FAULTS = {
    "a lone symbol": re.compile(r"^ *\w$", re.MULTILINE),
    "a section that is not at the margin": re.compile(
        r"^ +(Args|Attributes|Returns|Raises|Yields):$", re.MULTILINE
    ),
    "a section without a body": re.compile(
        r"^(Args|Attributes|Returns|Raises|Yields):(?!\n    \S)", re.MULTILINE
    ),
    "a formula that is missing": re.compile(r"^ *\.\. math::\s*(\n\S|\Z)", re.MULTILINE),
    "a directive without its blank line": re.compile(
        r"^[^\n]+\n\.\. \w+::|^\.\. math::[^\n]*\n(?: +[^\n]+\n)*\S", re.MULTILINE
    ),
}
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")  # what "\frac" is where a backslash is missing


def faults(docstring: str) -> list[str]:
    text = inspect.cleandoc(docstring)
    found = [name for name, pattern in FAULTS.items() if pattern.search(text)]
    return [*found, "a control character"] if CONTROL.search(docstring) else found


def docstrings() -> Iterator[tuple[str, str]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, DOCUMENTED):
                continue
            docstring = ast.get_docstring(node, clean=False)
            if docstring:
                name = getattr(node, "name", "the module")
                yield f"{path.relative_to(PACKAGE)}: {name}", docstring


def test_no_docstring_is_damaged():
    found = {where: faults(text) for where, text in docstrings() if faults(text)}
    assert not found


@pytest.mark.parametrize(
    ("docstring", "fault"),
    [
        ("A loss.\n\n    X\n        Args:\n            x: it.", "a lone symbol"),
        ("A loss.\n\n    X\n        Args:\n            x: it.", "a section that is not at the"),
        ("A loss.\n\n.. math:: \n\nArgs:\n    x: it.", "a formula that is missing"),
        ("A loss.\n\n.. math:: x\nwith x.", "a directive without its blank line"),
        ("A loss.\n.. math:: x\n", "a directive without its blank line"),
        ("A loss.\n\nArgs:\n\nReturns:\n    it.", "a section without a body"),
        ("A loss.\n\n.. math:: \frac12", "a control character"),
        ("A loss.\n\n.. math:: \times", "a control character"),
    ],
)
def test_damage_is_seen(docstring, fault):
    assert any(name.startswith(fault) for name in faults(docstring))
