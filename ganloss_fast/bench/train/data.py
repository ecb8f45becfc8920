"""What is trained on: data that installed packages hold, or that is synthesised. Nothing is
downloaded."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ganloss_fast.bench.train import speech

PHOTOGRAPHS, SOUNDS = 512, 64


class NoData(Exception):
    """A package that holds the data is missing; the text is for people."""


class BadFolder(ValueError):
    """The user's photographs cannot be used; the text is for people."""


@dataclass(frozen=True)
class Source:
    """Where data comes from.

    Args:
        folder: of the user's photographs; those of scikit-image without it.
    """

    folder: Path | None = None

    def photographs(self, size: int) -> Tensor:
        """[PHOTOGRAPHS, 3, size, size] in [-1, 1]: crops.

        Raises:
            NoData: if a package is missing.
            BadFolder: if the user's holds no photographs, or too small ones.
        """
        _ask_for("photographs", {"skimage": "scikit-image", "PIL": "pillow"})
        from ganloss_fast.bench.train.photographs import load_crops

        try:
            return load_crops(self.folder, size, PHOTOGRAPHS, seed=0)
        except ValueError as error:
            raise BadFolder(str(error)) from None

    def digits(self) -> Tensor:
        """[1797, 784] in [-1, 1]: the handwritten digits of scikit-learn, at the size of MNIST's.

        Raises:
            NoData: if the package is missing.
        """
        _ask_for("digits", {"sklearn": "scikit-learn"})
        from sklearn.datasets import load_digits

        images = torch.from_numpy(load_digits().images).float()[:, None] / 8 - 1  # [1797, 1, 8, 8]
        return F.interpolate(images, size=28, mode="bilinear").flatten(1)

    def speech(self, samples: int) -> Tensor:
        """[SOUNDS, 1, samples] in [-1, 1]."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return speech.synthesise(SOUNDS, samples)


def _ask_for(what: str, packages: dict[str, str]) -> None:
    missing = [
        name for module, name in packages.items() if importlib.util.find_spec(module) is None
    ]
    if missing:
        names = " ".join(missing)
        raise NoData(f"{what} need {names}: pip install {names}")
