"""Runs the ops of CPU tensors on the CUDA kernels, in the harness.

    with emulated_cuda():
        loss = ganloss_fast.discriminator_loss(real, fake, "hinge")
        loss.backward()
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator

import torch
from torch.utils import cpp_extension

from tests.harness import build

OPS = (
    "multi_tensor_loss",
    "multi_tensor_loss_backward",
    "multi_tensor_loss_double_backward",
    "interpolate",
    "gradient_penalty_loss",
    "gradient_penalty_loss_backward",
    "gradient_penalty_loss_double_backward",
)


@functools.cache
def load() -> None:
    """Builds and loads the emulated ops: torch.ops.ganloss_fast_emulated."""
    sources = [build.ROOT / path for path in (*build.KERNEL_SOURCES, "csrc/cuda/ops.cpp")]
    sources += [build.HARNESS / "emulated_ops.cpp", build.HARNESS / "counters.cpp"]
    includes = [build.ROOT / "csrc", *cpp_extension.include_paths()]
    library_folder = cpp_extension.library_paths()[0]
    library = build.build(
        "emulated_ops",
        sources,
        ["-O1", "-fPIC", f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"],
        ["-shared", f"-L{library_folder}", "-ltorch_cpu", "-lc10"],
        includes=includes,
    )
    torch.ops.load_library(str(library))


@contextlib.contextmanager
def emulated_cuda() -> Iterator[None]:
    """CPU tensors run on the emulated CUDA kernels inside the block."""
    load()
    library = torch.library.Library("ganloss_fast", "IMPL")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a kernel is overridden is the point
            for name in OPS:
                op = getattr(torch.ops.ganloss_fast_emulated, name).default
                library.impl(name, op, "CPU")
        yield
    finally:
        library._destroy()


def launches() -> int:
    """Kernel launches of the emulated device so far."""
    return torch.ops.ganloss_fast_emulated.launches()


def memsets() -> int:
    """Memory fills of the emulated device so far."""
    return torch.ops.ganloss_fast_emulated.memsets()
