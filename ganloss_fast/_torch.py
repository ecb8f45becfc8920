"""The only door to torch's private API: what the package needs and public torch does not have.

A release of torch that renames one of these breaks this file and no other. It imports nothing of
the package. Left where they are read: private attributes of tensors, autograd nodes, modules and
what torch.compile makes of them, such as ``tensor._version`` and ``module._parameters``, which have
not changed in years and read better in place; tests/test_house.py lists them.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.modules import module as nn_module
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._python_dispatch import _disable_current_modes as disable_dispatch_modes
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

__all__ = [
    "BatchNorm",
    "FakeTensor",
    "TorchDispatchMode",
    "TreeSpec",
    "backwards_run_by",
    "disable_dispatch_modes",
    "graph_pass",
    "graphs_being_traced",
    "has_backward_hooks",
    "is_functorch_active",
    "is_looked_on",
    "make_dynamo_look_again",
    "quiet_allocator",
    "run_by_dynamo",
    "traces_autograd_calls",
    "tree_flatten",
    "tree_leaves",
    "tree_unflatten",
    "weight_of_norm",
    "without_onednn",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])


# ---- eager -------------------------------------------------------------------------------------


def weight_of_norm(directions: torch.Tensor, magnitudes: torch.Tensor) -> torch.Tensor:
    """The weight of a weight norm over all axes but the first, by one kernel each way."""
    weight: torch.Tensor = torch._weight_norm(directions, magnitudes, 0)
    return weight


def is_functorch_active() -> bool:
    """Whether a transform of torch.func (grad, vmap, ...) is at work."""
    return torch._C._functorch.maybe_current_level() is not None


def is_looked_on() -> bool:
    """Whether a transform of torch.func or a dispatch mode sees each operation: FakeTensorMode, a
    FLOP counter."""
    return is_functorch_active() or torch._C._len_torch_dispatch_stack() > 0


def has_backward_hooks(module: torch.nn.Module) -> bool:
    """Whether hooks run in a backward through the module: its own, or those of all modules."""
    return bool(
        module._backward_hooks
        or module._backward_pre_hooks
        or nn_module._global_backward_hooks
        or nn_module._global_backward_pre_hooks
    )


@contextlib.contextmanager
def without_onednn() -> Iterator[None]:
    """torch.backends.mkldnn.flags sets TF32 too, and warns of it."""
    enabled = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(enabled)


class _Engine:
    """Stands for autograd's, which is asked for nothing but this by Python code."""

    def __init__(self, run: Callable[..., Any], engine: Any) -> None:
        self.run, self.engine = run, engine

    def run_backward(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(self.engine.run_backward, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


@contextlib.contextmanager
def backwards_run_by(run: Callable[..., Any]) -> Iterator[None]:
    """Within the block every backward and autograd.grad, however it was imported, is
    ``run(original, roots, gradients, retain_graph, create_graph, inputs, ...)``."""
    variable: Any = torch.autograd.Variable
    with _changed(variable, "_execution_engine", _Engine(run, variable._execution_engine)):
        yield


@contextlib.contextmanager
def quiet_allocator() -> Iterator[None]:
    """Within the block torch's C++ code logs nothing below errors: a memory profile would be warned
    of each block that is freed in it and older than it. (TORCH_CPP_LOG_LEVEL is read at import.)"""
    level = _cpp_log_level()
    with _changed(level, "value", max(level.value, _ERRORS)):
        yield


@contextlib.contextmanager
def _changed(owner: object, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


_ERRORS = 2  # of c10's levels: info, warning, error, fatal


def _cpp_log_level() -> ctypes.c_int:
    """Where c10 keeps it; on another system, or under another name, a number that nobody reads."""
    library = Path(torch.__file__).parent / "lib" / "libc10.so"
    try:
        return ctypes.c_int.in_dll(ctypes.CDLL(str(library)), "FLAGS_caffe2_log_level")
    except (OSError, ValueError):
        return ctypes.c_int(_ERRORS)


# ---- Dynamo ------------------------------------------------------------------------------------


def run_by_dynamo(function: _Function) -> _Function:
    """Dynamo runs the function itself where traced code calls it, and takes its result for a
    constant. What it raises ends the compilation, where traced code would be cut into pieces.

    What torch.compiler.assume_constant_result does; that imports the compiler: seconds.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def graphs_being_traced() -> list[torch.fx.Graph]:
    """All graphs of the function that Dynamo is tracing; for a function that Dynamo runs."""
    from torch._dynamo.symbolic_convert import InstructionTranslator

    output: Any = InstructionTranslator.current_tx().output
    graphs = [tracer.graph for tracer in output.tracers]
    return graphs + [
        module.graph  # the body of a checkpoint, for one
        for module in output.nn_modules.values()
        if isinstance(module, torch.fx.GraphModule)
    ]


def traces_autograd_calls() -> bool:
    """Whether Dynamo has the option on by which it traces backward(); for compiled code."""
    return getattr(torch._dynamo.config, "trace_autograd_ops", False)


# Before 2.13, compiled code looks at a module again only where one of its dictionaries changed, and
# would go on with the graph of before: a critic that was first run while it was frozen would never
# learn.
_DYNAMO_LOOKS_AT_DICTIONARIES = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13)


def make_dynamo_look_again(modules: Sequence[torch.nn.Module]) -> None:
    """Whether their parameters require grad has changed."""
    if not _DYNAMO_LOOKS_AT_DICTIONARIES or "torch._dynamo" not in sys.modules:
        return
    for module in modules:
        for part in module.modules():
            parameters = dict(part._parameters)
            part._parameters.clear()
            part._parameters.update(parameters)


# ---- Inductor ----------------------------------------------------------------------------------


def graph_pass(rewrite: Callable[[torch.fx.Graph], None], file: str) -> Any:
    """A pass for Inductor, whose cache depends on ``file``: the source of the pass."""
    from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files

    class Pass(CustomGraphPass):
        def __call__(self, graph: torch.fx.Graph) -> None:
            rewrite(graph)

        def uuid(self) -> Any:  # the compiler's cache has to know what ran
            return get_hash_for_files((file,))

    return Pass()


def clamp_each_(tensors: list[torch.Tensor], low: float, high: float) -> None:
    """Clamps many tensors in place; on a GPU in a launch or two for all of them."""
    torch._foreach_clamp_min_(tensors, low)
    torch._foreach_clamp_max_(tensors, high)
