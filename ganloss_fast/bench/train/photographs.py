"""Training data: random crops of photographs, as one tensor.

The default photographs ship inside the scikit-image wheel, so nothing is downloaded.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import skimage.data
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

# Colour photographs of scikit-image that are files of the wheel itself. Its other pictures are
# fetched on first use, or are drawings and textures.
SHIPPED = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "motorcycle_left.png",
    "rocket.jpg",
)
# A crop shows 1 / zoom of a photograph's shorter side.
ZOOMS = (1.4, 2.0, 2.8)
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def shipped_files() -> list[Path]:
    """The photographs inside the installed scikit-image."""
    folder = Path(skimage.data.__file__).parent
    return [folder / name for name in SHIPPED]


def files_in(folder: Path) -> list[Path]:
    """The pictures in a user's folder and its subfolders, in a fixed order.

    Raises:
        ValueError: if there is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise ValueError(f"--data: {folder} is not a folder.")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise ValueError(f"--data: no pictures ({', '.join(SUFFIXES)}) in {folder}.")
    return files


def read_photograph(path: Path) -> Tensor:
    """[3, H, W] in [-1, 1].

    Raises:
        ValueError: if the file cannot be read as a picture.
    """
    try:
        with Image.open(path) as picture:
            pixels = np.array(ImageOps.exif_transpose(picture).convert("RGB"))  # [H, W, 3]
    except OSError as error:
        raise ValueError(f"--data: {path} cannot be read as a picture: {error}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 127.5 - 1.0


def shrink(photograph: Tensor, shortest: int) -> Tensor:
    """The photograph with its shorter side brought down to ``shortest`` pixels."""
    height, width = photograph.shape[1:]
    factor = min(1.0, shortest / min(height, width))
    size = (round(height * factor), round(width * factor))
    return F.interpolate(photograph[None], size=size, mode="area")[0]


def random_crop(photograph: Tensor, size: int, rng: torch.Generator) -> Tensor:
    """[3, size, size]: a square of a random place, mirrored half of the time."""
    height, width = photograph.shape[1:]
    top = int(torch.randint(height - size + 1, (), generator=rng))
    left = int(torch.randint(width - size + 1, (), generator=rng))
    square = photograph[:, top : top + size, left : left + size]
    return square.flip(2) if torch.rand((), generator=rng) < 0.5 else square


def load_crops(folder: Path | None, size: int, count: int, seed: int) -> Tensor:
    """[count, 3, size, size] in [-1, 1], an equal share from every photograph.

    Raises:
        ValueError: if the folder holds no usable picture, or one smaller than ``size``.
    """
    files = shipped_files() if folder is None else files_in(folder)
    rng = torch.Generator().manual_seed(seed)
    crops: list[Tensor] = []
    for k, path in enumerate(files):
        photograph = read_photograph(path)
        if min(photograph.shape[1:]) < size:
            raise ValueError(
                f"--data: {path} is {photograph.shape[2]}x{photograph.shape[1]} pixels; crops of "
                f"--size {size} need at least {size}x{size}."
            )
        views = [shrink(photograph, round(size * zoom)) for zoom in ZOOMS]
        share = count * (k + 1) // len(files) - count * k // len(files)
        crops += [random_crop(views[i % len(views)], size, rng) for i in range(share)]
    return torch.stack(crops)
