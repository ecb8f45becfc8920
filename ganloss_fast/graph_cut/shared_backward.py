"""One backward for a main loss and a penalty: when it is right, and how that is shown.

csrc/graph_cut/shared_backward.cpp builds it, and reads from the graph of the forward what speaks
against it. That the samples do not meet is also looked at, at the first use of a critic in a graph
of some shape: the inner gradient is taken once more, of logits that are multiplied with another
power of two for each sample. Then every row of the gradient of every layer must be multiplied with
the power of its sample, to the bit but for kernels that add up in no fixed order.

Where the gradient of a layer is zero for most samples (a head that starts at zero, dead units)
nothing was shown, and the next call looks again. What an autograd.Function does is known by looking
alone: calls 2, 4, 8, ... look again.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ganloss_fast import backends

if backends.HAS_NATIVE or TYPE_CHECKING:
    from ganloss_fast import _C

_REMEMBERED = 256  # graphs
_SHOWN = 0.5  # share of the samples that must have a gradient that is not zero


class Record:
    """What is known of one critic in a graph of one shape."""

    def __init__(self) -> None:
        self.calls = 0
        self.due: float = 1
        self.refusal = ""


_records: OrderedDict[int, Record] = OrderedDict()


def record_of(shared: _C.SharedBackward) -> Record:
    record = _records.setdefault(shared.fingerprint, Record())
    _records.move_to_end(shared.fingerprint)
    if len(_records) > _REMEMBERED:
        _records.popitem(last=False)
    return record


def why_not(logits: Sequence[Tensor], inputs: Sequence[Tensor]) -> str:
    """What speaks against it before the graph is looked at; empty if nothing does."""
    if not backends.HAS_NATIVE:
        return f"there is no native extension: {backends.NATIVE_MISSING}"
    if not torch.is_grad_enabled():
        return "gradients are switched off"
    if len(logits) != 1:
        return f"it has {len(logits)} outputs; call it for each of several critics"
    plain = (Tensor, torch.nn.Parameter)
    if any(type(t) not in plain or t.is_meta for t in (*logits, *inputs)):
        return "its tensors are of another kind than torch.Tensor"
    if any(x.dim() == 0 or x.shape[0] != inputs[0].shape[0] or x.numel() == 0 for x in inputs):
        return "its inputs have no samples along their first dimension"
    if any(x._backward_hooks for x in inputs):
        return "an input has a hook"
    return ""


def begin(logits: Tensor, inputs: Sequence[Tensor]) -> _C.SharedBackward:
    """Reads the graph of the forward; its ``refusal`` says what speaks against it there."""
    return _C.SharedBackward(logits, list(inputs))


def looking_waits(device: torch.device) -> bool:
    return device.type != "cpu"


def rows_signal(shared: _C.SharedBackward) -> tuple[str, Tensor | None]:
    """Of critics that pick a logit for each sample with logits[rows, labels]: a refusal if the
    rows are not 0, 1, 2, ...; on a device where looking would wait, a 0-d factor instead, 1 or
    NaN."""
    signal: Tensor | None = None
    for index in shared.row_indices:
        rows = index.flatten()
        is_right = (rows == torch.arange(len(rows), device=rows.device)).all()
        if looking_waits(rows.device):
            factor = torch.where(is_right, 1.0, math.nan)
            signal = factor if signal is None else signal * factor
        elif not is_right.item():
            return "it puts its samples in another order", None
    return "", signal


def look(shared: _C.SharedBackward, record: Record, logits: Tensor, directions: Tensor) -> str:
    """Why the samples cannot share a backward, if a look is due."""
    if record.calls < record.due:
        return ""
    if logits.is_cuda and torch.cuda.is_current_stream_capturing():
        return "its samples have not been looked at before a CUDA graph was captured"
    factors = distinct_powers(logits.numel(), record.calls).to(logits)
    is_alone, share, is_finite = shared.compare(directions, factors).amin(0).tolist()
    if not is_finite:
        return "its gradient is not finite"
    if not is_alone:
        record.refusal = "its samples interact: the gradient of one depends on another's logit"
        return record.refusal
    if share < _SHOWN:
        record.due = record.calls + 1
    else:
        record.due = 2 * record.calls if shared.has_custom_functions else math.inf
    return ""


def distinct_powers(count: int, seed: int) -> Tensor:
    """[count]: 1, 1/2, 1/4, 1/8, 1/16 and their negatives in random order; up to ten samples get
    ten different ones, more share these evenly. None is larger than 1: a loss scale fills the range
    of float16."""
    place = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return torch.exp2(-(place % 5).float()) * (1 - 2 * (place // 5 % 2))
