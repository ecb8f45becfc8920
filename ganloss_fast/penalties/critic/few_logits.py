"""A critic with fewer logits than samples: noticed, as it seldom means what a penalty assumes."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ganloss_fast._torch import run_by_dynamo
from ganloss_fast.checks import warn_caller
from ganloss_fast.penalties.critic.reach import owner_and_part

FEW_LOGITS = (
    "critic: it has fewer logits than samples, but a penalty takes a norm for each sample. Where a "
    "logit judges a pack of samples (PacGAN, CTGAN), pass packs as the samples, inputs.view(B // "
    "pac, -1) and a critic of packs. Where it is a mean over samples, return the logits that it is "
    "the mean of: the gradient of the mean is B times too small. A sum over samples is right, and "
    "so are its summands, without this warning."
)

_warned: weakref.WeakKeyDictionary[Any, set[Any]] = weakref.WeakKeyDictionary()


def warn_of_few_logits(critic: Any, logits: Sequence[Tensor], samples: int) -> None:
    """Warns, once for a critic, of outputs that join several samples."""
    for logit in logits:
        if logit.numel() < samples:
            if torch.compiler.is_compiling():
                _warn_while_tracing()
            else:
                _warn_once(critic)
            return


def _warn_once(critic: Any) -> None:
    owner, part = owner_and_part(critic)
    try:
        parts = _warned.setdefault(owner, set())
        if part in parts:
            return
        parts.add(part)
    except TypeError:  # not hashable, or without weak references: Python's filter remembers
        pass
    warn_caller(FEW_LOGITS)


@run_by_dynamo
def _warn_while_tracing() -> None:
    """No graph break, and once for a compiled function."""
    warnings.warn(FEW_LOGITS, stacklevel=2)
