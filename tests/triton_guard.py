"""A guard for Triton's interpreter: it runs kernels on the CPU, and too kindly.

As it is, the interpreter rounds bfloat16 towards zero, computes bfloat16 arithmetic on raw bits,
reads and writes outside tensors without a word, gives zeros where a masked load leaves a register
undefined, and runs one program after another, so that no race can show. Within ``guarded()``

* bfloat16 is rounded to nearest even, as GPUs and PyTorch do, and arithmetic on it raises;
* every access must lie inside a tensor that was given to the kernel;
* masked-off lanes of a load without ``other`` are NaN;
* programs run in a shuffled order, and a program that reads or overwrites what another program
  wrote, or writes what another read, raises, unless a release by the other and an acquire by this
  one (the two halves of an acq_rel atomic) stand between the two accesses.

It replaces methods of ``triton.runtime.interpreter``, which are private: another Triton than the
one named in SUPPORTED is refused. Use :func:`why_unavailable` to skip.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

SUPPORTED = "3.8."


def why_unavailable() -> str | None:
    """The reason why kernels cannot be guarded in this process, or None."""
    try:
        import triton
    except ImportError:
        return "Triton is not installed"
    if not triton.__version__.startswith(SUPPORTED):
        return f"the guard knows the interpreter of Triton {SUPPORTED}x, not {triton.__version__}"
    if os.environ.get("TRITON_INTERPRET") != "1":
        return "TRITON_INTERPRET=1 is not set (it must be before Triton is imported)"
    return None


def skip_module_without_interpreter() -> None:
    """For the top of a test file, before it imports Triton."""
    if reason := why_unavailable():
        pytest.skip(f"interpreter: {reason}", allow_module_level=True)


class KernelFault(AssertionError):
    """A kernel did what is wrong on a GPU."""


NOBODY, SEVERAL = -1, -2


@dataclass
class Region:
    """A stretch of memory that belongs to arguments, and who accessed it: one entry for every
    two bytes, the smallest element."""

    begin: int
    end: int
    writer: np.ndarray = field(init=False)
    reader: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        size = (self.end - self.begin + 1) // 2
        self.writer = np.full(size, NOBODY, np.int32)
        self.reader = np.full(size, NOBODY, np.int32)


def tensors_in(arguments: Iterable[Any]) -> Iterator[torch.Tensor]:
    """Those of a kernel's arguments, in tuples too: a list of segments comes as one."""
    for argument in arguments:
        if isinstance(argument, torch.Tensor):
            yield argument
        elif isinstance(argument, tuple):
            yield from tensors_in(argument)


def regions_of(tensors: list[torch.Tensor]) -> list[Region]:
    """The memory of the tensors; overlapping ones (views of one storage) share a region."""
    spans = []
    for tensor in tensors:
        if tensor.numel() == 0:
            continue
        last = sum((n - 1) * abs(k) for n, k in zip(tensor.shape, tensor.stride()))
        begin = tensor.data_ptr()
        spans.append((begin, begin + (last + 1) * tensor.element_size()))
    merged: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if merged and begin < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return [Region(begin, end) for begin, end in merged]


class Launch:
    """What is known of one launch: its memory, its order of programs, who has synchronised."""

    def __init__(self, tensors: list[torch.Tensor], seed: int) -> None:
        self.regions = regions_of(tensors)
        self.seed = seed
        self.program = 0
        self.order: list[int] = []
        self.released: set[int] = set()
        self.visible: dict[int, set[int]] = {}  # by program: whose writes it has acquired

    def set_grid(self, grid: tuple[int, int, int]) -> None:
        self.order = list(range(grid[0] * grid[1] * grid[2]))
        random.Random(self.seed).shuffle(self.order)

    def synchronise(self, semantic: str) -> None:
        if "RELEASE" in semantic:
            self.released.add(self.program)
        if "ACQUIRE" in semantic:
            self.visible.setdefault(self.program, set()).update(self.released)

    def strangers(self, programs: np.ndarray) -> set[int]:
        """Those of the programs whose accesses this program may not see yet."""
        seen = self.visible.get(self.program, set())
        return set(np.unique(programs).tolist()) - seen - {NOBODY, self.program}

    def access(self, kind: str, addresses: np.ndarray, width: int) -> None:
        """Checks and records a load, a store or an atomic of `width` bytes at each address."""
        remaining = len(addresses)
        for region in self.regions:
            inside = (addresses >= region.begin) & (addresses + width <= region.end)
            if not inside.any():
                continue
            remaining -= int(inside.sum())
            index = (addresses[inside] - region.begin) // 2
            if kind == "load":
                self.load(region, index)
            elif kind == "store":
                self.store(region, index)
        if remaining:
            raise KernelFault(
                f"out of bounds: {kind} of {remaining} elements in program {self.program}"
            )

    def load(self, region: Region, index: np.ndarray) -> None:
        if writers := self.strangers(region.writer[index]):
            raise KernelFault(
                f"race: program {self.program} reads what programs {sorted(writers)} wrote"
            )
        readers = region.reader[index]
        first = (readers == NOBODY) | (readers == self.program)
        region.reader[index] = np.where(first, self.program, SEVERAL)

    def store(self, region: Region, index: np.ndarray) -> None:
        if others := self.strangers(region.writer[index]):
            raise KernelFault(
                f"race: programs {sorted(others)} and {self.program} write the same element"
            )
        if others := self.strangers(region.reader[index]):
            raise KernelFault(
                f"race: program {self.program} writes what other programs read ({sorted(others)})"
            )
        region.writer[index] = self.program


def round_to_bfloat16(values: np.ndarray) -> np.ndarray:
    """The bits of float32 values as bfloat16, to nearest even."""
    bits = np.ascontiguousarray(values.astype(np.float32)).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


@contextlib.contextmanager
def guarded(seed: int = 0) -> Iterator[None]:
    """Runs the kernels that are launched inside under the guard; `seed` shuffles the programs."""
    import triton.language as tl
    import triton.runtime.interpreter as interpreter

    if reason := why_unavailable():
        raise RuntimeError(reason)
    builder = interpreter.InterpreterBuilder
    handle = interpreter.TensorHandle
    executor = interpreter.GridExecutor
    original = {
        name: getattr(builder, name)
        for name in (
            "cast_impl",
            "binary_op",
            "unary_op",
            "ternary_op",
            "create_masked_load",
            "create_masked_store",
            "create_atomic_rmw",
            "set_grid_dim",
            "set_grid_idx",
        )
    }
    original_arguments = executor._init_args_hst
    original_call = executor.__call__
    original_patch_language = interpreter._patch_lang
    launch = Launch([], seed)
    prepared: set[int] = set()

    def cast(self: Any, source: Any, to: Any) -> Any:
        before, after = source.dtype.scalar, to.scalar
        if before == tl.bfloat16 and after != tl.bfloat16:
            source = handle(from_bfloat16(source.data), tl.float32)
            return original["cast_impl"](self, source, to)
        if after == tl.bfloat16 and before != tl.bfloat16:
            return handle(round_to_bfloat16(source.data), after)
        return original["cast_impl"](self, source, to)

    def without_bfloat16(name: str) -> Any:
        def operation(self: Any, *arguments: Any) -> Any:
            operands = [x for x in arguments if isinstance(x, handle)]
            is_selection = arguments[-1] is np.where
            if not is_selection and any(x.dtype.scalar == tl.bfloat16 for x in operands):
                raise KernelFault("bfloat16 arithmetic: upcast right after the load")
            return original[name](self, *arguments)

        return operation

    def active_addresses(pointers: Any, mask: Any) -> np.ndarray:
        addresses = np.asarray(pointers.data).astype(np.int64)
        return addresses[np.broadcast_to(np.asarray(mask.data, bool), addresses.shape)]

    def width_of(pointers: Any) -> int:
        return pointers.get_element_ty().primitive_bitwidth // 8

    def load(self: Any, pointers: Any, mask: Any, other: Any, *rest: Any) -> Any:
        launch.access("load", active_addresses(pointers, mask), width_of(pointers))
        loaded = original["create_masked_load"](self, pointers, mask, other, *rest)
        # For a scalar the interpreter drops an `other` of 0 on the way here: not to be told apart.
        if other is None and loaded.data.size > 1:
            inactive = ~np.broadcast_to(np.asarray(mask.data, bool), loaded.data.shape)
            loaded.data.view(np.uint8).reshape(*loaded.data.shape, -1)[inactive] = 0xFF
        return loaded

    def store(self: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        launch.access("store", active_addresses(pointers, mask), width_of(pointers))
        return original["create_masked_store"](self, pointers, value, mask, *rest)

    def atomic(
        self: Any, op: Any, pointer: Any, value: Any, mask: Any, sem: Any, *rest: Any
    ) -> Any:
        launch.access("atomic", active_addresses(pointer, mask), width_of(pointer))
        launch.synchronise(str(sem).upper())
        return original["create_atomic_rmw"](self, op, pointer, value, mask, sem, *rest)

    def set_grid_dim(self: Any, *grid: int) -> None:
        launch.set_grid(grid)  # type: ignore[arg-type]
        original["set_grid_dim"](self, *grid)

    def set_grid_idx(self: Any, x: int, y: int, z: int) -> None:
        _, height, depth = self.grid_dim
        launch.program = launch.order[(x * height + y) * depth + z]
        rest, z = divmod(launch.program, depth)
        original["set_grid_idx"](self, *divmod(rest, height), z)

    def arguments_of_launch(self: Any, positional: Any, keywords: Any) -> Any:
        nonlocal launch
        on_host = original_arguments(self, positional, keywords)
        launch = Launch(list(tensors_in([*on_host[0], *on_host[1].values()])), seed)
        return on_host

    def call(self: Any, *positional: Any, **keywords: Any) -> Any:
        prepared.clear()
        try:
            # Overflow to inf and inf - inf are ordinary values in a kernel.
            with np.errstate(all="ignore"):
                return original_call(self, *positional, **keywords)
        except interpreter.InterpreterError as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, KernelFault):
                cause = cause.__cause__
            raise cause or error from None

    def patch_language(function: Any) -> Any:
        # Only for speed: the interpreter prepares the language anew at every call of a device
        # function. Once for each module and launch is enough.
        if prepared and id(function.__globals__) in prepared:
            return None
        prepared.add(id(function.__globals__))
        return original_patch_language(function)

    replacements: dict[str, Any] = {
        "cast_impl": cast,
        "create_fp_to_fp": lambda self, source, to, rounding: cast(self, source, to),
        "create_masked_load": load,
        "create_masked_store": store,
        "create_atomic_rmw": atomic,
        "set_grid_dim": set_grid_dim,
        "set_grid_idx": set_grid_idx,
    }
    for name in ("binary_op", "unary_op", "ternary_op"):
        replacements[name] = without_bfloat16(name)
    with contextlib.ExitStack() as stack:
        for name, replacement in replacements.items():
            stack.enter_context(mock.patch.object(builder, name, replacement))
        stack.enter_context(mock.patch.object(executor, "_init_args_hst", arguments_of_launch))
        stack.enter_context(mock.patch.object(executor, "__call__", call))
        stack.enter_context(mock.patch.object(interpreter, "_patch_lang", patch_language))
        yield
