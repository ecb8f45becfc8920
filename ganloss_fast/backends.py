"""Which implementation serves a tensor, and why the others do not.

``native`` is the C++ extension, ``triton`` the Triton kernels, ``reference`` plain PyTorch.
``auto`` takes the first that serves the tensor's device; a choice that cannot be honoured raises.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
from collections.abc import Iterator

import torch
from torch import Tensor

from ganloss_fast import extension
from ganloss_fast._torch import FakeTensor
from ganloss_fast.checks import quoted, warn_caller

BACKENDS = ("native", "triton", "reference")
CHOICES = ("auto", *BACKENDS)

_choice = "auto"
_advice = extension.ADVICE


BUILD_FACTS = extension.FACTS
NATIVE_MISSING = extension.MISSING
HAS_NATIVE = NATIVE_MISSING is None
HAS_CUDA = HAS_NATIVE and BUILD_FACTS["built"] == "cuda"

# Importing Triton takes a second, so it is looked for here and imported when a tensor needs it.
TRITON_MISSING = (
    None if importlib.util.find_spec("triton") else "it is not installed (run: pip install triton)"
)
# Triton's own switch: kernels run in its interpreter, on the CPU, for tests.
TRITON_INTERPRETED = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "on", "true", "yes")

# An extension without CUDA kernels: the registered ops take the Triton kernels for CUDA tensors.
REGISTERS_TRITON = HAS_NATIVE and TRITON_MISSING is None and not HAS_CUDA


def _runs_on(code: str, capability: tuple[int, int]) -> bool:
    """Whether GPU code (sm_80, or compute_80 for PTX) runs on a compute capability."""
    kind, _, number = code.partition("_")
    version = int(number.rstrip("af")[:-1]), int(number.rstrip("af")[-1])
    if number.endswith("a"):  # for this one alone
        return capability == version
    if kind == "compute" and not number.endswith("f"):
        return capability >= version
    return capability[0] == version[0] and capability >= version


@functools.cache
def _uncovered_gpu() -> str | None:
    """Why the CUDA kernels do not run on a GPU of this machine, or None. Asked once."""
    if torch.cuda.is_available():
        codes = BUILD_FACTS.get("gpu_code", [])
        for device in range(torch.cuda.device_count()):
            capability = torch.cuda.get_device_capability(device)
            if not any(_runs_on(code, capability) for code in codes):
                return (
                    f"its CUDA kernels are compiled for {', '.join(codes)}, and GPU {device} has "
                    f"compute capability {'.'.join(map(str, capability))} (reinstall ganloss_fast "
                    "with TORCH_CUDA_ARCH_LIST set to it)"
                )
    return None


@functools.cache
def _triton_failure() -> str | None:
    """Why Triton does not start on this machine, or None. Asked once, at the first CUDA tensor.

    It needs a driver, a GPU it supports, and a C compiler with Python's headers for its launcher.
    """
    if not torch.cuda.is_available():
        return "torch finds no GPU"
    if torch.version.hip is None:
        capability = torch.cuda.get_device_capability()
        if capability < (8, 0):
            return f"it needs compute capability 8.0, this GPU has {'.'.join(map(str, capability))}"
    try:
        from triton.runtime import driver

        driver.active.get_current_target()
    except Exception as error:  # a missing compiler is a CalledProcessError or a RuntimeError
        return f"it does not start: {error}"
    return None


def why_not(backend: str, device_type: str) -> str | None:
    """The reason why ``backend`` cannot serve tensors of a device type, or None if it can."""
    if backend == "reference":
        return None
    if backend == "triton":
        return _why_not_triton(device_type)
    if not HAS_NATIVE:
        return NATIVE_MISSING
    if device_type == "cpu":
        return None
    if device_type == "cuda":
        if not HAS_CUDA:
            reason: str = BUILD_FACTS["reasons"].get("cuda", "it has no CUDA kernels")
            return reason
        return _uncovered_gpu()
    return f"there are no native kernels for {device_type} tensors"


def _why_not_triton(device_type: str) -> str | None:
    if TRITON_MISSING is not None:
        return TRITON_MISSING
    if TRITON_INTERPRETED:
        return None if device_type == "cpu" else "TRITON_INTERPRET=1 runs it on CPU tensors alone"
    if device_type == "cuda":
        return _triton_failure()
    return f"it does not run on {device_type} tensors"


def _refuse_choice(device_type: str) -> None:
    """Raises if the explicit choice cannot serve tensors of a device type."""
    reason = why_not(_choice, device_type)
    if reason is not None:
        raise RuntimeError(
            f"backend '{_choice}' was chosen but cannot serve {device_type} tensors: {reason}"
        )


def _advise() -> None:
    """Says once how to get the native kernels, where whoever installed the package may not know
    that there are any."""
    global _advice
    # In this order: Dynamo would guard on the advice, and compile anew when it is gone.
    if not torch.compiler.is_compiling() and _advice is not None:
        advice, _advice = _advice, None
        warn_caller(advice)


def has_own_dispatch(tensor: Tensor) -> bool:
    """Whether the tensor decides itself what an operation does with it, as a DTensor does: then
    an op that it has no rule for would fail, and plain PyTorch works."""
    kind = type(tensor)
    if kind is Tensor or kind is torch.nn.Parameter:
        return False
    if torch.compiler.is_compiling():  # Dynamo's own stand-ins are FakeTensors
        return hasattr(tensor, "__tensor_flatten__")
    own = kind.__torch_dispatch__ is not Tensor.__torch_dispatch__
    return own and not isinstance(tensor, FakeTensor)


def is_native(tensor: Tensor) -> bool:
    """Whether the native op serves ``tensor`` under the current choice."""
    if type(tensor) is not Tensor and has_own_dispatch(tensor):
        if _choice in ("native", "triton"):
            raise RuntimeError(
                f"backend '{_choice}' was chosen but cannot serve a {type(tensor).__name__}, which "
                "has a dispatch of its own: use 'auto' or 'reference'"
            )
        return False
    if _choice == "auto":
        if not HAS_NATIVE:
            _advise()
            return False
        if tensor.is_cuda:
            return HAS_CUDA and _uncovered_gpu() is None
        return tensor.is_cpu
    if _choice != "native":
        return False
    _refuse_choice(tensor.device.type)
    return True


def is_triton(tensor: Tensor) -> bool:
    """Whether the Triton kernels serve ``tensor``, given that the native op does not."""
    if _choice == "auto":
        if type(tensor) is not Tensor and has_own_dispatch(tensor):
            return False
        return tensor.is_cuda and why_not("triton", "cuda") is None
    if _choice != "triton":
        return False
    _refuse_choice(tensor.device.type)
    return True


def get_backend() -> str:
    """The current choice: ``"auto"``, ``"native"``, ``"triton"`` or ``"reference"``."""
    return _choice


def set_backend(backend: str) -> None:
    """Chooses the implementation for the whole process.

    Args:
        backend: ``"auto"`` (default), ``"native"``, ``"triton"`` or ``"reference"``.

    Raises:
        ValueError: if there is no such backend.
        RuntimeError: if it is not available in this installation, with the reason.
    """
    global _choice
    if backend not in CHOICES:
        raise ValueError(f"backend: expected one of {', '.join(CHOICES)}, got {quoted(backend)}")
    if backend == "native" and not HAS_NATIVE:
        raise RuntimeError(f"backend 'native' is not available: {NATIVE_MISSING}")
    if backend == "triton" and TRITON_MISSING is not None:
        raise RuntimeError(f"backend 'triton' is not available: {TRITON_MISSING}")
    _choice = backend


@contextlib.contextmanager
def use_backend(backend: str) -> Iterator[None]:
    """:func:`set_backend` for the length of a ``with`` block."""
    previous = get_backend()
    set_backend(backend)
    try:
        yield
    finally:
        set_backend(previous)
