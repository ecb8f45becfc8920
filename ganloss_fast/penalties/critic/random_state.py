"""What a critic draws random numbers from, kept so that a second forward pass draws the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ganloss_fast._torch import disable_dispatch_modes
from ganloss_fast.penalties.critic.reach import (
    generator_state,
    loaded_global_generators,
    set_generator_state,
)


class RandomState:
    """Of the generators that a forward pass on a device draws from: torch's, Python's and numpy's
    global ones, and those that the critic holds."""

    def __init__(self, device: torch.device, own: Sequence[Any]) -> None:
        self._device = device
        self._cpu = torch.get_rng_state()
        self._on_device: Tensor | None = None
        is_cuda = device.type == "cuda"
        # A capture of a CUDA graph forbids to look; without a driver, tensors are fakes.
        hidden = is_cuda and (
            not torch.cuda.is_initialized() or torch.cuda.is_current_stream_capturing()
        )
        if device.type not in ("cpu", "meta") and not hidden:
            self._on_device = torch.get_device_module(device).get_rng_state(device)
        generators = {id(g): g for g in (*loaded_global_generators(), *own)}
        self._others = [
            (generator, generator_state(generator)) for generator in generators.values()
        ]

    def restore(self) -> None:
        torch.set_rng_state(self._cpu)
        if self._on_device is not None:
            torch.get_device_module(self._device).set_rng_state(self._on_device, self._device)
        for generator, state in self._others:
            set_generator_state(generator, state)

    def has_moved(self) -> bool:
        now = RandomState(self._device, [generator for generator, _ in self._others])
        with disable_dispatch_modes():  # FakeTensorMode, for one, takes no tensor but its own
            if not _is_same(self._cpu, now._cpu) or not _is_same(self._on_device, now._on_device):
                return True
            others = {id(generator): state for generator, state in now._others}
            return any(not _is_same(state, others[id(g)]) for g, state in self._others)


def _is_same(a: Any, b: Any) -> bool:
    """Whether two states of one generator are equal: tensors, or nested arrays and numbers."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_is_same(a[key], b[key]) for key in a)
    if isinstance(a, tuple) and any(hasattr(part, "tobytes") for part in a):
        return len(a) == len(b) and all(map(_is_same, a, b))
    same: bool = a.tobytes() == b.tobytes() if hasattr(a, "tobytes") else a == b
    return same
