"""Types of arguments: each reads a text, or says what was expected. Without rich, which a machine
with a GPU may lack."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path

import torch

SEEDS, MOST_DIGITS = 2**32, 20  # what all generators take, also times the steps of a training


def positive(text: str) -> int:
    value = int(text) if text.isdecimal() and len(text) < MOST_DIGITS else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return value


def threads(text: str) -> int:
    value, cores = positive(text), os.cpu_count() or 1
    if value > cores:
        raise argparse.ArgumentTypeError(f"this machine has {cores} cores, got {text!r}")
    return value


def folder(text: str) -> Path:
    """Made at once, where it is not there: before anything is measured that it is to hold."""
    path = Path(text)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot write to {path}: {error.strerror}") from None
    if not os.access(path, os.W_OK):
        raise argparse.ArgumentTypeError(f"cannot write to {path}: Permission denied")
    return path


def seed(text: str) -> int:
    if not text.isdecimal() or int(text[:MOST_DIGITS]) >= SEEDS or len(text) >= MOST_DIGITS:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to {SEEDS - 1}")
    return int(text)


def _number(text: str, fits: Callable[[float], bool], expected: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan  # fits nothing
    if not fits(value):
        raise argparse.ArgumentTypeError(f"expected a number {expected}, got {text!r}")
    return value


def above_0(text: str) -> float:
    return _number(text, lambda value: 0 < value < math.inf, "above 0")


def share(text: str) -> float:
    return _number(text, lambda value: 0 <= value < 1, "from 0 up to 1")


def device(text: str) -> torch.device:
    try:
        found = torch.device(text)
    except RuntimeError:
        found = torch.device("meta")
    if found.type not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"expected cpu or cuda, got {text!r}")
    if found.type == "cuda" and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError("torch finds no GPU: torch.cuda.is_available() is False")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise argparse.ArgumentTypeError(
            f"torch finds {torch.cuda.device_count()} GPUs, counted from cuda:0, got {text!r}"
        )
    return found
