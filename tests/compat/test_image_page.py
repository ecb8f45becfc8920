"""docs/compat/image.md: every import that it tells people to write works."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "compat" / "image.md").read_text()
IMPORTS = re.findall(r"from (ganloss_fast\.compat\.\w+) import ([\w, ]+)", PAGE)
MODULES = re.findall(r"import (ganloss_fast\.compat\.\w+) as losses", PAGE)
DOCUMENTED = re.findall(r"automodule:: (\S+)", PAGE)


@pytest.mark.parametrize(("module", "names"), IMPORTS)
def test_names_are_there(module, names):
    for name in names.split(","):
        assert getattr(importlib.import_module(module), name.strip()).__doc__


def test_every_module_is_named_and_documented():
    named = {module for module, _ in IMPORTS} | set(MODULES)
    assert named == set(DOCUMENTED)
    assert len(named) == 14
