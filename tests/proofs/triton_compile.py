"""Compiles Triton kernels for GPUs that are not there, and reads what the compiler made of them.

The package's launchers run as they are, on CPU tensors, over a driver that compiles for the GPU
and launches nothing. So what is compiled is what a user's call compiles, specialised by Triton
itself (pointers by alignment, integers by divisibility, None as a constant). Triton brings ptxas
and cuobjdump; no toolkit is needed.
"""

from __future__ import annotations

import contextlib
import functools
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from ganloss_fast.ops.triton import interpolate, multi_tensor_loss, norm_penalty, perturb

THREADS = 128  # of a program
SUPPORTED = "3.8."  # its compiler's internals are used here, and registers differ by release

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}


class _Driver:
    """As much of a Triton driver as launching needs, for a GPU that is not there."""

    def __init__(self, target: str) -> None:
        self.target = TARGETS[target]
        # Triton caches kernels by device, so every target is a device of its own.
        self.device = list(TARGETS).index(target)
        self.utils = self

    def get_current_device(self) -> int:
        return self.device

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 65536}

    def load_binary(self, name: str, binary: bytes, shared: int, device: int) -> tuple:
        return object(), None, 0, 0, 1024

    def launcher_cls(self, source: Any, metadata: Any) -> Callable[..., None]:
        return lambda *arguments: None


def driver_of(target: str) -> contextlib.AbstractContextManager:
    """Within it, Triton's launcher compiles for `target` and launches nothing."""
    from triton.runtime import driver

    return mock.patch.object(driver, "_active", _Driver(target))


class Launch(NamedTuple):
    name: str  # of the kernel
    grid: tuple[int, ...]
    kernel: Any  # triton's CompiledKernel


def launches_of(call: Callable[[], Any], target: str) -> list[Launch]:
    """What a call launches, compiled for `target`."""
    launches = []
    run = JITFunction.run

    def recording(self: JITFunction, *args: Any, grid: tuple, **kwargs: Any) -> Any:
        kernel = run(self, *args, grid=grid, **kwargs)
        launches.append(Launch(self.__name__, grid, kernel))
        return kernel

    warps = THREADS // TARGETS[target].warp_size
    with (
        driver_of(target),
        mock.patch.object(JITFunction, "run", recording),
        # As on a torch for the target's maker: layout.py looks at the one that is installed.
        mock.patch.object(multi_tensor_loss, "NUM_WARPS", warps),
        mock.patch.object(norm_penalty, "NUM_WARPS", warps),
        mock.patch.object(interpolate, "NUM_WARPS", warps),
        mock.patch.object(perturb, "NUM_WARPS", warps),
    ):
        call()
    return launches


class Compiled(NamedTuple):
    """What a kernel takes and what it consists of."""

    registers: int
    spilled: int  # what goes to memory: 0, or too much
    instructions: Counter  # by opcode with its modifiers
    text: str  # PTX, or AMD assembly

    def count(self, pattern: str) -> int:
        """Instructions whose opcode matches from its beginning."""
        return sum(n for opcode, n in self.instructions.items() if re.match(pattern, opcode))


@functools.cache
def _tool(name: str) -> str:
    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name)


def _read_cubin(cubin: bytes, ptx: str) -> Compiled:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()

        def dump(option: str) -> str:
            command = [_tool("cuobjdump"), option, file.name]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout

        usage = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", dump("--dump-resource-usage")))
        opcodes = re.findall(
            r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", dump("-sass")
        )
    spilled = int(usage["STACK"]) + int(usage["LOCAL"])
    return Compiled(int(usage["REG"]), spilled, Counter(opcodes), ptx)


def _read_amdgcn(assembly: str) -> Compiled:
    def number(name: str) -> int:
        return int(re.search(rf"\.{name}:?\s+(\d+)", assembly)[1])  # type: ignore[index]

    opcodes = re.findall(r"^\s+([sv]_\w+|(?:global|buffer|flat|scratch)_\w+)", assembly, re.M)
    # A spilled scalar register goes to a lane of a vector register: no memory, not counted.
    spilled = number("vgpr_spill_count") + number("private_segment_fixed_size")
    return Compiled(number("vgpr_count"), spilled, Counter(opcodes), assembly)


def read(kernel: Any) -> Compiled:
    """The resources and instructions of a CompiledKernel."""
    if "amdgcn" in kernel.asm:
        return _read_amdgcn(kernel.asm["amdgcn"])
    return _read_cubin(kernel.asm["cubin"], kernel.asm["ptx"])
