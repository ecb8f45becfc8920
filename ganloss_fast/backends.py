"""Which implementation serves a tensor, and why the others do not.

``native`` is the C++ extension, ``reference`` plain PyTorch. ``auto`` takes the first that
serves the tensor's device; a choice that cannot be honoured raises.
"""

from __future__ import annotations

import contextlib
import importlib
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

BACKENDS = ("native", "reference")
CHOICES = ("auto", *BACKENDS)

_choice = "auto"


def _read_build_facts() -> dict:
    path = Path(__file__).with_name("_build.json")
    return json.loads(path.read_text()) if path.exists() else {}


def _load_extension() -> str | None:
    """Imports the extension, which registers the ops. Returns why it is not there, or None."""
    if "native" in BUILD_FACTS.get("reasons", {}):
        return BUILD_FACTS["reasons"]["native"]
    if not BUILD_FACTS:
        return "the extension is not built (run: pip install --no-build-isolation .)"
    if BUILD_FACTS["torch"] != torch.__version__:
        # Loading it could crash: C++ symbols and layouts differ between releases.
        return (
            f"it was built for torch {BUILD_FACTS['torch']} and this is {torch.__version__} "
            "(reinstall ganloss_fast)"
        )
    try:
        importlib.import_module("ganloss_fast._C")
    except (ImportError, OSError) as error:
        return f"it does not load: {error}"
    return None


BUILD_FACTS = _read_build_facts()
NATIVE_MISSING = _load_extension()
HAS_NATIVE = NATIVE_MISSING is None
HAS_CUDA = HAS_NATIVE and BUILD_FACTS["built"] == "cuda"


def why_not(backend: str, device_type: str) -> str | None:
    """The reason why ``backend`` cannot serve tensors of a device type, or None if it can."""
    if backend == "reference":
        return None
    if not HAS_NATIVE:
        return NATIVE_MISSING
    if device_type == "cpu":
        return None
    if device_type == "cuda":
        return None if HAS_CUDA else BUILD_FACTS["reasons"].get("cuda", "it has no CUDA kernels")
    return f"there are no native kernels for {device_type} tensors"


def is_native(tensor: Tensor) -> bool:
    """Whether the native op serves ``tensor`` under the current choice."""
    if _choice == "auto":
        return (HAS_NATIVE and tensor.is_cpu) or (HAS_CUDA and tensor.is_cuda)
    if _choice == "reference":
        return False
    reason = why_not("native", tensor.device.type)
    if reason is not None:
        raise RuntimeError(
            f"backend 'native' was chosen but cannot serve {tensor.device.type} tensors: {reason}"
        )
    return True


def get_backend() -> str:
    """The current choice: ``"auto"``, ``"native"`` or ``"reference"``."""
    return _choice


def set_backend(backend: str) -> None:
    """Chooses the implementation for the whole process.

    Args:
        backend: ``"auto"`` (default), ``"native"`` or ``"reference"``.

    Raises:
        ValueError: if there is no such backend.
        RuntimeError: if it is not available in this installation, with the reason.
    """
    global _choice
    if backend not in CHOICES:
        raise ValueError(f"backend: expected one of {', '.join(CHOICES)}, got {backend!r}")
    if backend == "native" and not HAS_NATIVE:
        raise RuntimeError(f"backend 'native' is not available: {NATIVE_MISSING}")
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
