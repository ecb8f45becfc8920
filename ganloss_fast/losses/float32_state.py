"""Modules whose buffers move by small steps, and so must not follow a cast to half precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Float32State(torch.nn.Module):
    """Keeps the dtypes of its buffers, whatever the module is cast to.

    In bfloat16 an average that moves by a thousandth of its distance would never move at all.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        return super()._apply(lambda t: fn(t).to(t.dtype), recurse)  # type: ignore[no-untyped-call]
