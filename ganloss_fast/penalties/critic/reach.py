"""What a critic reaches: its modules, and random generators of its own.

A critic may be a module, a bound method, a lambda around one, or a function that draws from a
generator in a closure. What its code can name is followed; what it looks up at run time, in a
registry for instance, is not found.
"""

from __future__ import annotations

import functools
import random
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn import Module

# How far to follow functions and objects, and how many entries of a container to look at.
_DEPTH, _ENTRIES = 6, 64


def unwrapped(critic: Any) -> Module | None:
    """The module that the critic is: itself, or behind a bound method, partial or torch.compile.
    None for other functions, which may run any module."""
    while True:
        if isinstance(critic, functools.partial):
            critic = critic.func
        elif isinstance(critic, types.MethodType):
            critic = critic.__self__
        elif hasattr(critic, "_orig_mod"):
            critic = critic._orig_mod
        else:
            return critic if isinstance(critic, Module) else None


def owner_and_part(critic: Any) -> tuple[Any, Any]:
    """What to remember a critic by: itself, or of a bound method, which is another object every
    time, what it is bound to and its function."""
    if isinstance(critic, types.MethodType):
        return critic.__self__, critic.__func__
    return critic, None


class Reach:
    """The modules of a critic, its generators, and whether torch.compile made a part of it."""

    def __init__(self, critic: Callable[..., Any]) -> None:
        self.modules: dict[Module, None] = {}  # in order
        self.generators: list[Any] = []
        self.has_compiled_part = False
        self._seen: set[int] = set()
        self._alive: list[Any] = []  # an id is good only while its object lives
        self._follow(critic, frozenset(), _DEPTH)

    def _follow(self, value: Any, names: frozenset[str], depth: int) -> None:
        """``names``: what the code that holds ``value`` asks objects for."""
        if value is None or depth == 0 or isinstance(value, _PLAIN) or id(value) in self._seen:
            return
        self._seen.add(id(value))
        self._alive.append(value)
        if hasattr(value, "_torchdynamo_orig_callable"):
            self.has_compiled_part = True
            self._follow(value._torchdynamo_orig_callable, names, depth)
        elif isinstance(value, Module):
            self._follow_module(value, depth)
        elif is_generator(value):
            self.generators.append(value)
        elif isinstance(value, types.FunctionType):
            self._follow_function(value, depth - 1)
        elif isinstance(value, types.MethodType):
            names = names | _names(value.__func__.__code__) if _has_code(value) else names
            self._follow(value.__self__, names, depth)
            self._follow(value.__func__, names, depth)
        elif isinstance(value, types.BuiltinFunctionType):
            self._follow(value.__self__, names, depth - 1)  # generator.random, for one
        elif isinstance(value, functools.partial):
            for part in (value.func, *value.args, *value.keywords.values()):
                self._follow(part, names, depth)
        elif isinstance(value, (list, tuple, set, frozenset)):
            for part in list(value)[:_ENTRIES]:
                self._follow(part, names, depth - 1)
        elif isinstance(value, dict):
            for part in list(value.values())[:_ENTRIES]:
                self._follow(part, names, depth - 1)
        elif not isinstance(value, (type, types.ModuleType)):
            self._follow_object(value, names, depth - 1)

    def _follow_module(self, root: Module, depth: int) -> None:
        for module in root.modules():
            if module in self.modules:
                continue
            self.modules[module] = None
            if module._compiled_call_impl is not None or hasattr(module, "_orig_mod"):
                self.has_compiled_part = True
            if type(module).__module__.startswith("torch.nn.modules."):
                continue  # they hold no generators
            forward = getattr(type(module), "forward", None)
            code = getattr(forward, "__code__", None)
            names = frozenset() if code is None else _names(code)
            for name, value in list(vars(module).items()):
                if name not in _OF_MODULES:
                    self._follow(value, names, depth - 1)
            self._follow(forward, names, depth - 1)

    def _follow_function(self, function: types.FunctionType, depth: int) -> None:
        if function.__module__ is not None and function.__module__.partition(".")[0] == "torch":
            return
        names = _names(function.__code__)
        for cell in function.__closure__ or ():
            try:
                self._follow(cell.cell_contents, names, depth)
            except ValueError:  # not bound yet
                continue
        for value in (function.__defaults__ or (), (function.__kwdefaults__ or {})):
            self._follow(value, names, depth)
        for name in names:
            if name in function.__globals__:
                self._follow(function.__globals__[name], names, depth)

    def _follow_object(self, value: Any, names: frozenset[str], depth: int) -> None:
        attributes = getattr(value, "__dict__", {})
        for name in names & attributes.keys():
            self._follow(attributes[name], names, depth)
        call = vars(type(value)).get("__call__")
        if isinstance(call, types.FunctionType):
            for name in _names(call.__code__) & attributes.keys():
                self._follow(attributes[name], _names(call.__code__), depth)


_PLAIN = (bool, int, float, complex, str, bytes, torch.Tensor, torch.dtype, torch.device)
_OF_MODULES = frozenset(vars(Module()))


def _has_code(method: types.MethodType) -> bool:
    return hasattr(method.__func__, "__code__")


@functools.lru_cache(maxsize=1024)
def _names(code: types.CodeType) -> frozenset[str]:
    """Globals and attributes that the code names, in its inner functions too."""
    inner = (_names(part) for part in code.co_consts if isinstance(part, types.CodeType))
    return frozenset(code.co_names).union(*inner)


def is_generator(value: Any) -> bool:
    if isinstance(value, (torch.Generator, random.Random)):
        return True
    numpy = sys.modules.get("numpy.random")
    return numpy is not None and isinstance(value, (numpy.Generator, numpy.RandomState))


def generator_state(generator: Any) -> Any:
    """A copy of the state; of a torch.Generator as a tensor on the CPU, without waiting."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        return generator.getstate()
    if hasattr(generator, "bit_generator"):
        return generator.bit_generator.state
    return generator.get_state()


def set_generator_state(generator: Any, state: Any) -> None:
    if isinstance(generator, random.Random):
        generator.setstate(state)
    elif hasattr(generator, "bit_generator"):
        generator.bit_generator.state = state
    else:
        generator.set_state(state)


def loaded_global_generators() -> Iterator[Any]:
    """Python's and numpy's, each as an object with getstate or get_state."""
    yield random._inst  # what random.random is a method of
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        yield numpy.mtrand._rand
