"""How many convolutions a piece of code calls."""

from __future__ import annotations

from collections import Counter

from torch.utils._python_dispatch import TorchDispatchMode


class CountConvolutions(TorchDispatchMode):
    """``calls`` of "convolution" and "convolution_backward"; ``total``, both."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    @property
    def total(self) -> int:
        return self.calls.total()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("convolution", "convolution_backward"):
            self.calls[name] += 1
        return func(*args, **(kwargs or {}))
