"""Argument checks of the public functions: they name the argument, what was expected, what came."""

from __future__ import annotations

import dataclasses
import math
import numbers
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor

FLOATING = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

Logits = Tensor | Sequence[Tensor]
Weight = float | Tensor

# ---- saying what came --------------------------------------------------------------------------
#
# A message stays within a few lines and never looks at the data of a tensor, which would wait for
# the device. So nothing but a builtin scalar is asked for its repr.

_LONGEST = 60  # characters of one name or value in a message


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def quoted(value: object) -> str:
    """A builtin scalar as one writes it, shortened; of anything else the name of its type."""
    if type(value) is str or type(value) is bytes:
        return _shortened(repr(value[:_LONGEST]))
    if value is None or type(value) in (bool, float, complex):
        return repr(value)
    if type(value) is int and value.bit_length() < 200:  # a very long one has no repr
        return repr(value)
    return _shortened(type(value).__name__)


def describe(value: object) -> str:
    """A short description of a wrong argument."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)} and dtype {value.dtype}"
    if isinstance(value, (list, tuple)):
        return f"a {_shortened(type(value).__name__)} of {len(value)}"
    if isinstance(value, Mapping):
        keys = ", ".join(quoted(key) for key, _ in zip(value, range(3)))
        more = ", ..." if len(value) > 3 else ""
        return f"a {_shortened(type(value).__name__)} with the keys {keys}{more}"
    if isinstance(value, type):
        return f"the class {_shortened(value.__name__)}"
    if value is None or isinstance(value, str):
        return quoted(value)
    if isinstance(value, (bytes, int, float, complex)):
        return f"{_shortened(type(value).__name__)} ({quoted(value)})"
    return f"an object of type {_shortened(type(value).__name__)}"


def warn_caller(message: str) -> None:
    """Warns at the line that called the package, however deep inside of it this is. In eager."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and _is_passed_over(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


def _is_passed_over(module: str) -> bool:
    """torch's, through which nn.Module calls a forward; contextlib's, where a block ends."""
    return module.partition(".")[0] in ("ganloss_fast", "torch", "contextlib")


# ---- tensors -----------------------------------------------------------------------------------


def is_plain(value: Any) -> TypeGuard[Tensor]:
    """The usual case of :func:`check_tensor`, without building a name for it."""
    return type(value) is Tensor and value.dtype in FLOATING and value.layout is torch.strided


def check_tensor(name: str, value: Any) -> Tensor:
    """A dense floating-point tensor."""
    if is_plain(value):
        return value
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {describe(value)}.")
    if value.dtype not in FLOATING:
        raise TypeError(
            f"{name}: expected float16, bfloat16, float32 or float64, got {value.dtype}. "
            f"{_conversion(name, value)}"
        )
    if value.layout != torch.strided:
        raise TypeError(
            f"{name}: expected a dense tensor, got layout {value.layout}. Convert it first: "
            f"{name}.to_dense()."
        )
    return value


def check_loss(name: str, value: object) -> Tensor:
    """A loss to walk back: a floating-point tensor of one element."""
    loss = check_tensor(name, value)
    if loss.numel() != 1:
        raise ValueError(f"{name}: expected a tensor of one element, got {describe(value)}.")
    return loss


def _conversion(name: str, value: Tensor) -> str:
    if value.dtype.is_complex:  # .float() would drop the imaginary part
        return f"Pass real and imaginary parts, for example torch.view_as_real({name})."
    return f"Convert it first, for example {name}.float()."


def as_outputs(name: str, value: object) -> list[Tensor]:
    """A tensor, or a flat sequence of tensors, as a list."""
    if isinstance(value, Tensor):
        return [check_tensor(name, value)]
    if not isinstance(value, (list, tuple)):
        raise TypeError(
            f"{name}: expected a tensor or a sequence of tensors, got {describe(value)}."
            + _entry_advice(name, value)
        )
    if not value:
        raise ValueError(f"{name}: expected at least one tensor, got an empty sequence.")
    for k, item in enumerate(value):
        if is_plain(item):
            continue
        if isinstance(item, (list, tuple)):
            raise ValueError(
                f"{name}: expected a flat sequence of tensors, but entry {k} is "
                f"{describe(item)}. If each entry holds feature maps and logits, pass the "
                f"logits alone: [outputs[-1] for outputs in {name}]."
            )
        check_tensor(f"{name}[{k}]", item)
    check_one_device(name, value)
    return list(value)


def _entry_advice(name: str, value: object) -> str:
    """What to do with the output of a critic that names its entries."""
    if isinstance(value, Mapping):
        return f" Pass one of its entries, for example {name}['logits']."
    if hasattr(type(value), "__dataclass_fields__"):
        return f" Pass one of its fields, for example {name}.logits."
    return ""


def check_one_device(name: str, tensors: Sequence[Tensor]) -> None:
    """All tensors of one call lie on one device."""
    device = tensors[0].device
    for k, tensor in enumerate(tensors):
        if tensor.device != device:
            raise ValueError(
                f"{name}: expected all tensors on one device, got {device} for entry 0 and "
                f"{tensor.device} for entry {k}."
            )


def check_same_device(name: str, tensor: Tensor, like_name: str, like: Tensor) -> None:
    if tensor.device != like.device:
        raise ValueError(
            f"{name}: expected the device of {like_name}, {like.device}, got {tensor.device}."
        )


def broadcasts(tensor: Tensor, like: Tensor) -> bool:
    """Whether ``tensor`` is 0-d, or has the dimensions of ``like`` or 1 in their place. Fewer
    dimensions would let [B] stand for the columns of [B, B]."""
    return tensor.dim() == 0 or (
        tensor.dim() == like.dim()
        and all(own in (1, extent) for own, extent in zip(tensor.shape, like.shape))
    )


# ---- values ----------------------------------------------------------------------------------


class Value:
    """What a frozen dataclass is that may hold tensors: equal to another one of its type whose
    fields are equal, a tensor being equal to itself alone. (A tensor's own == gives a tensor.)"""

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(map(_is_same, self._compared(), other._compared()))

    def __hash__(self) -> int:
        return hash((type(self), *self._compared()))

    def _compared(self) -> list[object]:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return [getattr(self, field.name) for field in fields if field.compare]


def _is_same(value: object, other: object) -> bool:
    if isinstance(value, Tensor) or isinstance(other, Tensor):
        return value is other
    return value == other


# ---- numbers -----------------------------------------------------------------------------------
#
# Python's, NumPy's and any other that say that they are real. What the checks return is a Python
# number, which is what the ops and torch.compile take.


def check_number(name: str, value: object) -> float:
    """A finite real number, as a float."""
    if type(value) is not float:
        # (int, float) first: torch.compile knows its symbolic numbers by these.
        if isinstance(value, bool) or not isinstance(value, (int, float, numbers.Real)):
            raise TypeError(f"{name}: expected a number, got {describe(value)}.")
        try:
            value = float(value)
        except OverflowError:
            value = math.inf
    if not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value}.")
    return value


def check_number_field(owner: object, name: str) -> float:
    """A finite number in a field of a frozen dataclass, where one of NumPy's becomes a float."""
    value = getattr(owner, name)
    number = check_number(name, value)
    if type(value) not in (int, float):
        object.__setattr__(owner, name, number)
    return number


def check_integer(name: str, value: object, least: int = 1) -> int:
    """An integer that is not below ``least``."""
    if type(value) is not int:
        if isinstance(value, bool) or not isinstance(value, (int, numbers.Integral)):
            raise TypeError(f"{name}: expected an integer, got {describe(value)}.")
        value = int(value)
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {quoted(value)}.")
    return value


def check_weight(name: str, value: object) -> Weight:
    """A finite number, or a 0-d floating-point tensor (which may change per step)."""
    if not isinstance(value, Tensor):
        return check_number(name, value)
    if value.dim() != 0 or not value.dtype.is_floating_point:
        raise ValueError(
            f"{name}: expected a number or a 0-d floating-point tensor, got {describe(value)}."
        )
    return value


def scaled(weight: Any, value: Tensor) -> Tensor:
    """``weight * value`` in the dtype of ``value``, whatever that of a 0-d weight is."""
    if isinstance(weight, Tensor):
        return savable(weight).to(value.dtype) * value
    return value if weight == 1 else float(weight) * value


def is_unsavable(tensor: Tensor) -> bool:
    """Whether autograd cannot keep it for a backward: made under torch.inference_mode()."""
    if torch.compiler.is_compiling():  # Dynamo neither knows the question nor needs the answer
        return False
    return tensor.is_inference() and not torch.is_inference_mode_enabled()


def savable(tensor: Tensor) -> Tensor:
    """The tensor, or a copy of one that autograd cannot keep."""
    return tensor.clone() if is_unsavable(tensor) else tensor


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {quoted(value)}.")


def check_flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {describe(value)}.")
    return value


def check_names(owner: str, given: Sequence[str], known: Sequence[str]) -> None:
    """Keyword arguments of a configured object, which would otherwise fail at its first call."""
    for name in given:
        if name not in known:
            raise TypeError(f"{owner}: there is no option {quoted(name)}.{suggestion(name, known)}")


def suggestion(name: str, known: Sequence[str]) -> str:
    """`` Did you mean ...?`` for a near miss."""
    import difflib  # seldom needed, and slow to import

    close = difflib.get_close_matches(name[:_LONGEST], known, n=1)
    return f" Did you mean {close[0]}?" if close else ""
