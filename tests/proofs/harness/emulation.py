"""Runs the ops of CPU tensors on the CUDA kernels, compiled for the CPU.

with emulated_cuda():
    loss = ganloss_fast.discriminator_loss(real, fake, "hinge")
    loss.backward()
"""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import cpp_extension
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_any

from harness import build


def build_library(sanitizer: str = "plain") -> Path:
    """The emulated ops as a library. A sanitized one needs its runtime loaded before Python."""
    csrc = build.ROOT / "csrc"
    sources = [build.ROOT / path for path in build.KERNEL_SOURCES]
    sources += sorted(set((csrc / "cuda").glob("*.cpp")) - {csrc / "cuda" / "registration.cpp"})
    sources += sorted((csrc / "host").glob("*.cpp"))
    sources += [build.HARNESS / "emulated_ops.cpp", build.HARNESS / "counters.cpp"]
    # Not include_paths("cuda"): the harness brings its own c10/cuda headers.
    includes = [csrc, *cpp_extension.include_paths()]
    flags = ["-fPIC", f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"]
    # torch's classes have no type information for -fsanitize=vptr to look at.
    checks = build.SANITIZERS[sanitizer] + ["-fno-sanitize=vptr"] * (sanitizer == "address")
    return build.build(
        f"emulated_ops_{sanitizer}",
        sources,
        [*checks, "-O1", *flags],
        ["-shared", f"-L{cpp_extension.library_paths()[0]}", "-ltorch_cpu", "-lc10"],
        includes=includes,
    )


@functools.cache
def load(sanitizer: str = "plain") -> None:
    """Builds and loads the emulated ops: torch.ops.ganloss_fast_emulated."""
    torch.ops.load_library(str(build_library(sanitizer)))


class emulated_cuda(TorchDispatchMode):
    """Inside the block, calls of the ops that reach a backend go to the emulated kernels.

    Autograd lies above, so graphs, double backward and the public functions take their usual way.
    """

    def __init__(self, sanitizer: str = "plain") -> None:
        super().__init__()
        load(sanitizer)
        self._launched_before = launches()

    @property
    def launched(self) -> int:
        """Kernel launches inside the block."""
        return launches() - self._launched_before

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function.namespace == "ganloss_fast" and not tree_any(_is_fake, (args, kwargs)):
            name = function.name().removeprefix("ganloss_fast::")
            function = getattr(torch.ops.ganloss_fast_emulated, name).default
        return function(*args, **kwargs)


def _is_fake(value: object) -> bool:
    return isinstance(value, FakeTensor)


def launches() -> int:
    """Kernel launches of the emulated device so far."""
    return torch.ops.ganloss_fast_emulated.launches()


def memsets() -> int:
    """Memory fills of the emulated device so far."""
    return torch.ops.ganloss_fast_emulated.memsets()


def set_schedule(seed: int) -> None:
    """In which order the emulated device runs blocks and threads; -1 is one after another."""
    torch.ops.ganloss_fast_emulated.set_schedule(seed)


def set_stream(handle: int, is_capturing: bool = False) -> None:
    """The current stream of the emulated device, and whether a graph captures it."""
    torch.ops.ganloss_fast_emulated.set_stream(handle, is_capturing)


def ticket() -> tuple[int, int]:
    """The address and the value of the ticket that a call would take now."""
    return torch.ops.ganloss_fast_emulated.ticket()
