"""The native extension as Python sees it: its type stub, and its list of ops."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import ganloss_fast
from ganloss_fast import backends, ops

STUB = Path(ganloss_fast.__file__).with_name("_C.pyi")

pytestmark = pytest.mark.skipif(
    not backends.HAS_NATIVE, reason=f"no extension: {backends.why_not('native', 'cpu')}"
)


def body_of_stub() -> list[ast.stmt]:
    return ast.parse(STUB.read_text()).body


def functions_of_stub() -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in body_of_stub() if isinstance(node, ast.FunctionDef)}


def methods_of_stub() -> dict[str, dict[str, ast.FunctionDef]]:
    """Of every class; properties too."""
    classes = [node for node in body_of_stub() if isinstance(node, ast.ClassDef)]
    return {
        node.name: {part.name: part for part in node.body if isinstance(part, ast.FunctionDef)}
        for node in classes
    }


def test_the_stub_names_what_the_extension_has():
    from ganloss_fast import _C

    values = {node.target.id for node in body_of_stub() if isinstance(node, ast.AnnAssign)}
    named = values | set(functions_of_stub()) | set(methods_of_stub())
    assert named == {name for name in dir(_C) if not name.startswith("_")}
    for name, methods in methods_of_stub().items():
        has = {part for part in dir(getattr(_C, name)) if not part.startswith("_")}
        assert set(methods) - {"__init__"} == has


def test_the_stub_takes_as_many_arguments_as_the_extension():
    """pybind11 writes the signature of a function into its docstring: arg0, arg1 ..."""
    from ganloss_fast import _C

    for name, function in functions_of_stub().items():
        signature = getattr(_C, name).__doc__.splitlines()[0]
        assert len(function.args.posonlyargs) == signature.count("arg"), signature
    for name, methods in methods_of_stub().items():
        for method, function in methods.items():
            if not function.decorator_list:  # a property has no signature
                signature = getattr(getattr(_C, name), method).__doc__.splitlines()[0]
                given = len(function.args.posonlyargs or function.args.args) - 1  # without self
                assert given == signature.count("arg"), signature


def test_every_function_of_the_stub_says_what_it_does():
    methods = [pair for of_class in methods_of_stub().values() for pair in of_class.items()]
    undocumented = [
        name
        for name, node in [*functions_of_stub().items(), *methods]
        if name != "__init__" and not ast.get_docstring(node)
    ]
    assert not undocumented


def test_every_op_of_the_extension_has_a_fake_kernel():
    from ganloss_fast import _C

    assert _C.op_names() == list(dict.fromkeys(_C.op_names()))
    assert set(_C.op_names()) == {name for op in ops.OPS for name in op.fake_kernels()}
