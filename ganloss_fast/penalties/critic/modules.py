"""Which modules a critic runs, and the state that a forward pass moves.

A critic may be a module, a bound method, a lambda around one or a checkpointed call: its modules
are not read off its type but seen when they run.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.parameter import is_lazy

from ganloss_fast._torch import BatchNorm
from ganloss_fast.checks import warn_caller
from ganloss_fast.penalties.critic.reach import Reach, owner_and_part, unwrapped
from ganloss_fast.penalties.critic.wrapped import refuse_wrapper


@contextlib.contextmanager
def before_first_run(critic: Callable[..., Any], see: Callable[[Module], None]) -> Iterator[None]:
    """Calls ``see`` with every module that this thread runs, before its first run.

    Where torch.compile made a part of the critic: with every module that it may run, at once.
    """
    reach = Reach(critic)
    if reach.has_compiled_part:  # Dynamo guards on hooks, and would compile for them anew
        for module in reach.modules:
            see(module)
        yield
        return
    thread = threading.get_ident()
    seen: set[Module] = set()

    def hook(module: Module, inputs: Any) -> None:
        if torch.compiler.is_compiling():  # a part that the walk missed, traced with this
            return
        if threading.get_ident() == thread and module not in seen:
            seen.add(module)
            see(module)

    with contextlib.ExitStack() as handles:
        for handle in _hooked(critic, reach, hook):
            handles.callback(handle.remove)
        yield


def _hooked(critic: Callable[..., Any], reach: Reach, hook: Callable[..., None]) -> Iterator[Any]:
    """Registers the hook on the critic's own modules, or on all there are, for a function: what
    that runs is known only when it runs."""
    root = unwrapped(critic)
    if root is None or any(isinstance(module, torch.jit.ScriptModule) for module in reach.modules):
        yield register_module_forward_pre_hook(hook)
        return
    for module in root.modules():
        yield module.register_forward_pre_hook(hook, prepend=True)


def uses_batch_statistics(module: Module) -> bool:
    """Whether it is a batch normalisation that couples the samples."""
    return isinstance(module, BatchNorm) and (module.training or module.running_mean is None)


_OLD_NORMS = {"SpectralNorm": "spectral_norm", "WeightNorm": "weight_norm"}


def old_norms(module: Module) -> list[str]:
    """Which of the norms that set the weight in a hook before each forward a module has."""
    hooks = [type(hook).__name__ for hook in module._forward_pre_hooks.values()]
    return [_OLD_NORMS[hook] for hook in hooks if hook in _OLD_NORMS]


def is_power_iteration(module: Module) -> bool:
    """Whether it carries the vectors of a spectral norm, in either implementation."""
    return type(module).__name__ == "_SpectralNorm" or "spectral_norm" in old_norms(module)


def _is_still_lazy(module: Module) -> bool:
    own = (*module._parameters.values(), *module._buffers.values())
    return any(tensor is not None and is_lazy(tensor) for tensor in own)


class _SavedBuffer(NamedTuple):
    owner: Module
    name: str
    tensor: Tensor
    version: int
    value: Tensor  # a copy

    def has_moved(self) -> bool:
        # getattr: a scripted module has a table of its own, without get().
        return getattr(self.owner, self.name, None) is not self.tensor or (
            self.tensor._version != self.version
        )

    def restore(self) -> None:
        self.owner._buffers[self.name] = self.tensor
        # .data: a tensor that some graph has saved for its backward keeps its version.
        self.tensor.data.copy_(self.value)


class ModuleStates:
    """Buffers as they were before a forward pass, and the spectral norms to freeze after it."""

    def __init__(self) -> None:
        self._saved: list[_SavedBuffer] = []
        self._seen: set[Module] = set()
        self._power_iterations: list[Module] = []

    def see(self, running: Module) -> None:
        """To be called before a module runs; it may use its submodules without running them."""
        for module in running.modules():
            if module in self._seen:
                continue
            self._seen.add(module)
            if module.training and is_power_iteration(module):
                self._power_iterations.append(module)
            if _is_still_lazy(module):  # its first run makes its buffers
                continue
            self._saved += [
                _SavedBuffer(module, name, buffer, buffer._version, buffer.detach().clone())
                for name, buffer in module._buffers.items()
                if buffer is not None
            ]

    def moved(self) -> list[str]:
        """Buffers that changed, other than those of a spectral norm."""
        return [
            f"{type(buffer.owner).__name__}.{buffer.name}"
            for buffer in self._saved
            if buffer.has_moved() and not is_power_iteration(buffer.owner)
        ]

    def restore(self) -> None:
        for buffer in self._saved:
            buffer.restore()

    def freeze(self) -> None:
        """Power iterations stand still from here on, in recomputed forward passes too."""
        for module in self._power_iterations:
            module.training = False

    def unfreeze(self) -> None:
        for module in self._power_iterations:
            module.training = True


_checked: weakref.WeakKeyDictionary[Any, set[Any]] = weakref.WeakKeyDictionary()
_warned: weakref.WeakSet[Module] = weakref.WeakSet()


@contextlib.contextmanager
def warns_if_samples_interact(critic: Callable[..., Any]) -> Iterator[None]:
    """Around a forward pass: warns, once, of batch statistics under a per-sample penalty."""
    owner, part = owner_and_part(critic)
    way = part, getattr(owner, "training", True)
    try:
        is_checked = way in _checked.setdefault(owner, set())
    except TypeError:  # not hashable, or without weak references
        is_checked = False
    if is_checked:
        yield
        return
    coupling: list[Module] = []

    def see(module: Module) -> None:
        refuse_wrapper(module)
        if uses_batch_statistics(module) and module not in _warned:
            coupling.append(module)

    with before_first_run(critic, see):
        yield
    with contextlib.suppress(TypeError):
        _checked[owner].add(way)
    _warned.update(coupling)
    if coupling:
        warn_caller(
            f"critic: it runs batch normalisation, {coupling[0]}, on the statistics of the batch: "
            "the gradient of one sample then depends on the others, so the penalty is not on "
            "per-sample norms. Gulrajani et al. (2017) use layer normalisation instead.",
        )
