"""The plan of the house: which room may import which, and where torch's private API is touched."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import ganloss_fast

PACKAGE = Path(ganloss_fast.__file__).parent
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))

# From the ground up. A room imports from storeys below its own, and from itself.
STOREYS = [
    {"_C", "_torch", "checks", "extension", "flops"},
    {"backends"},
    {"ops"},
    {"graph_cut"},
    {"losses", "penalties"},
    {"balancing", "diagnose", "freezing", "joint_forward", "modules", "steps"},
    {"compat"},
    {"adopt"},
    {"__init__"},
    {"bench"},
    {"__main__"},
]

# Private attributes of torch's objects that are read in place: see ganloss_fast/_torch.py.
PRIVATE_ATTRIBUTES = {
    "_backward_hooks",  # of a tensor
    "_version",
    "_input_metadata",  # of a node of the graph
    "_saved_weight",
    "_schema",  # of an operator
    "_buffers",  # of a module
    "_forward_pre_hooks",
    "_parameters",
    "_compiled_call_impl",  # of what torch.compile made
    "_orig_mod",
    "_torchdynamo_orig_callable",
}
OF_PYTHON_AND_NUMPY = {"_make", "_replace", "_getframe", "_inst", "_rand"}


def read(file: str) -> ast.Module:
    return ast.parse((PACKAGE / file).read_text())


def room_of(file: str) -> str:
    return Path(file).parts[0].removesuffix(".py")


def storey_of(room: str) -> int:
    storeys = [k for k, rooms in enumerate(STOREYS) if room in rooms]
    assert storeys, f"{room} is no room: import it from the module that defines it"
    return storeys[0]


def imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(module, name) of every import, wherever it stands; the name is empty for ``import x``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports say the whole name"
            yield from ((node.module or "", alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)


def imported_rooms(tree: ast.Module) -> set[str]:
    names = [f"{module}.{name}".split(".") for module, name in imports(tree)]
    rooms = {room for package, room, *_ in names if package == "ganloss_fast"}
    return {"__init__" if room in ("", "__version__") else room for room in rooms}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_names_of_torch(tree: ast.Module) -> set[str]:
    """What is imported from torch, or read as ``torch.x._y``, with a private name on the way."""
    found = set()
    for module, name in imports(tree):
        parts = f"{module}.{name}".split(".")
        if parts[0] == "torch" and any(map(is_private, parts)):
            found.add(".".join(parts))
    known = {"torch"}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            module = getattr(node, "module", None) or ""
            for alias in node.names:
                if f"{module}.{alias.name}".strip(".").split(".")[0] == "torch":
                    known.add((alias.asname or alias.name).split(".")[0])
    for node in ast.walk(tree):
        path = ast.unparse(node).split(".") if isinstance(node, ast.Attribute) else [""]
        if path[0] in known and all(map(str.isidentifier, path)) and any(map(is_private, path)):
            found.add(".".join(path))
    return found


def private_attributes(tree: ast.Module) -> set[str]:
    """Private attributes of anything but the object itself; aten has operations of such names."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and is_private(node.attr)
        if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "_aten"))
    }


def own_private_names() -> set[str]:
    """Private names that the package itself defines: functions, classes, variables, attributes."""
    own = set()
    for node in (node for file in FILES for node in ast.walk(read(file))):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            own.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self":
            own.add(node.attr)
    return own


def test_every_room_has_its_storey():
    rooms = {room_of(file) for file in FILES}
    assert rooms | {"_C"} == set().union(*STOREYS)


@pytest.mark.parametrize("file", FILES)
def test_imports_point_downward(file):
    """checks < ops < graph_cut < losses, penalties < faces and tools"""
    room = room_of(file)
    above = {
        other
        for other in imported_rooms(read(file)) - {room}
        if storey_of(other) >= storey_of(room)
    }
    assert not above, f"{file} imports {above}"


@pytest.mark.parametrize("file", FILES)
def test_rooms_are_imported_by_name(file):
    """``import ganloss_fast.checks`` would give ``ganloss_fast.losses`` too, once that is there,
    and what a function imports by a text nobody sees: the extension alone is."""
    tree = read(file)
    plain = {module for module, name in imports(tree) if not name}
    of_ours = {module for module in plain if module.partition(".")[0] == "ganloss_fast"}
    assert of_ours <= ({"ganloss_fast"} if file == "__main__.py" else set())
    texts = {
        ast.unparse(node.args[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module")
    }
    assert texts <= {"'ganloss_fast._C'"}


def test_an_import_that_points_upward_is_seen():
    tree = ast.parse("def later():\n    from ganloss_fast import ops, modules\n")
    assert imported_rooms(tree) == {"ops", "modules"}
    assert imported_rooms(ast.parse("import ganloss_fast.losses.table")) == {"losses"}


@pytest.mark.parametrize("file", [file for file in FILES if file != "_torch.py"])
def test_torchs_private_api_has_one_door(file):
    assert private_names_of_torch(read(file)) == set()


@pytest.mark.parametrize(
    "code",
    [
        "from torch._subclasses import fake_tensor",
        "from torch.utils._pytree import tree_flatten",
        "from torch.nn.modules.batchnorm import _BatchNorm",
        "import torch._dynamo",
        "torch._C._get_mkldnn_enabled()",
        "torch.nn.modules.batchnorm._BatchNorm",
        "from torch import nn\nnn.modules.batchnorm._BatchNorm",
        "import torch.nn.functional as F\nF._Reduction",
    ],
)
def test_private_names_of_torch_are_seen(code):
    assert private_names_of_torch(ast.parse(code))


def test_the_private_attributes_that_are_read_are_known():
    """So that a further one is a decision."""
    read_somewhere = set().union(
        *(private_attributes(read(file)) for file in FILES if file != "_torch.py")
    )
    known = own_private_names() - PRIVATE_ATTRIBUTES | OF_PYTHON_AND_NUMPY
    assert read_somewhere - known == PRIVATE_ATTRIBUTES


def test_files_of_tests_have_names_of_their_own():
    """pytest imports them by these, and says so only where both are collected."""
    names = Counter(file.name for file in Path(__file__).parent.rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
