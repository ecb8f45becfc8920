"""Shapes of the logits and feature maps of well-known codebases, for one sample where it fits.

They are worked out from the architectures, layer by layer, not read off a run; a test holds the
number of maps and elements to what the codebases' own models give.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Outputs:
    """What the discriminators of a codebase give for a batch."""

    source: str
    logits: tuple[Shape, ...]
    maps: tuple[Shape, ...] = ()  # those that feature matching compares


def _convolved(size: int, kernel: int, stride: int, padding: int) -> int:
    return (size + 2 * padding - kernel) // stride + 1


def patchgan(batch: int, size: tuple[int, int], layers: int, padding: int) -> list[Shape]:
    """The maps of an n-layer PatchGAN (Isola et al., 2017), the logits last."""
    height, width = size
    maps: list[Shape] = []
    for layer in range(layers + 2):
        stride = 2 if layer < layers else 1
        height, width = (_convolved(side, 4, stride, padding) for side in (height, width))
        channels = 1 if layer == layers + 1 else min(64 << layer, 512)
        maps.append((batch, channels, height, width))
    return maps


def _pyramid(source: str, batch: int, size: tuple[int, int], scales: int, layers: int) -> Outputs:
    """Multi-scale PatchGANs of pix2pixHD and SPADE, each on half the size of the one before."""
    logits: list[Shape] = []
    maps: list[Shape] = []
    for scale in range(scales):
        found = patchgan(batch, (size[0] >> scale, size[1] >> scale), layers, padding=2)
        logits.append(found[-1])
        maps += found[:-1]
    return Outputs(source, tuple(logits), tuple(maps))


def _period_maps(batch: int, samples: int, period: int) -> list[Shape]:
    """A period discriminator of HiFi-GAN (Kong et al., 2020), the logits last."""
    length = -(-samples // period)
    maps: list[Shape] = []
    for channels in (32, 128, 512, 1024):
        length = _convolved(length, 5, 3, 2)
        maps.append((batch, channels, length, period))
    return [*maps, (batch, 1024, length, period), (batch, 1, length, period)]


def _scale_maps(batch: int, samples: int) -> list[Shape]:
    """A scale discriminator of HiFi-GAN, the logits last."""
    maps: list[Shape] = []
    for channels, stride in ((128, 1), (128, 2), (256, 2), (512, 4), (1024, 4), (1024, 1)):
        samples = _convolved(samples, 41, stride, 20)
        maps.append((batch, channels, samples))
    return [*maps, (batch, 1024, samples), (batch, 1, samples)]


PERIODS = (2, 3, 5, 7, 11)


def _hifigan(batch: int, samples: int = 8192) -> Outputs:
    of_each = [_period_maps(batch, samples, period) for period in PERIODS]
    for _ in range(3):
        of_each.append(_scale_maps(batch, samples))
        samples = _convolved(samples, 4, 2, 2)
    return _flat("jik876/hifi-gan", of_each, with_logits=True)


def _flat(source: str, of_each: Sequence[Sequence[Shape]], with_logits: bool) -> Outputs:
    """``with_logits``: whether the logits are compared too."""
    logits = tuple((maps[-1][0], math.prod(maps[-1][1:])) for maps in of_each)
    compared = tuple(shape for maps in of_each for shape in maps[: None if with_logits else -1])
    return Outputs(source, logits, compared)


def _stft_maps(batch: int, frames: int, bins: int) -> list[Shape]:
    """A spectrogram discriminator of EnCodec (Defossez et al., 2022), the logits last."""
    sizes = [bins]
    for _ in range(3):
        sizes.append(_convolved(sizes[-1], 9, 2, 4))
    maps: list[Shape] = [(batch, 32, frames, size) for size in [*sizes, sizes[-1]]]
    return [*maps, (batch, 1, frames, sizes[-1])]


def _encodec(batch: int) -> Outputs:
    """One second at 24 kHz, five windows."""
    frames = {513: 90, 1025: 43, 257: 184, 129: 372, 65: 747}  # bins -> frames
    of_each = [_stft_maps(batch, count, bins) for bins, count in frames.items()]
    return _flat("facebookresearch/audiocraft", of_each, with_logits=False)


BANDS = ((0.0, 0.1), (0.1, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0))


def _dac(batch: int, samples: int = 16758) -> Outputs:
    """0.38 s at 44.1 kHz: five periods, and three windows of five bands each."""
    of_each = [_period_maps(batch, samples, period) for period in PERIODS]
    for window in (2048, 1024, 512):
        bins = window // 2 + 1
        frames = -(-samples // (window // 4))
        maps: list[Shape] = []
        widths = 0
        for low, high in BANDS:
            width = int(high * bins) - int(low * bins)
            maps.append((batch, 32, frames, width))
            for _ in range(3):
                width = _convolved(width, 9, 2, 4)
                maps.append((batch, 32, frames, width))
            maps.append((batch, 32, frames, width))
            widths += width
        of_each.append([*maps, (batch, 1, frames, widths)])
    return _flat("descriptinc/descript-audio-codec", of_each, with_logits=False)


def _one_output(source: str, batch: int, size: tuple[int, int]) -> Outputs:
    return Outputs(source, (patchgan(batch, size, layers=3, padding=1)[-1],))


OUTPUTS: dict[str, Outputs] = {
    "PatchGAN 256": _one_output("junyanz/pytorch-CycleGAN-and-pix2pix", 1, (256, 256)),
    "PatchGAN 512": _one_output("junyanz/pytorch-CycleGAN-and-pix2pix", 1, (512, 512)),
    "pix2pixHD 1024x512": _pyramid("NVIDIA/pix2pixHD", 1, (512, 1024), scales=3, layers=3),
    "SPADE 256": _pyramid("NVlabs/SPADE", 1, (256, 256), scales=2, layers=3),
    "HiFi-GAN": _hifigan(1),
    "BigVGAN v2, periods": _flat(
        "NVIDIA/BigVGAN",
        [_period_maps(1, 65536, period) for period in PERIODS],
        with_logits=True,
    ),
    "EnCodec": _encodec(1),
    "DAC": _dac(1),
    "BigGAN 128": Outputs("ajbrock/BigGAN-PyTorch", ((256, 1),)),
    "WGAN-GP CIFAR": Outputs("igul222/improved_wgan_training", ((64, 1),)),
    "CTGAN": Outputs("sdv-dev/CTGAN", ((50, 1),)),
    "Motion prior": Outputs("AMP (Peng et al., 2021)", ((4096, 1),)),
    "R3GAN": Outputs("brownvc/R3GAN", ((256,),)),
    "ESRGAN": Outputs("XPixelGroup/BasicSR", ((16, 1),)),
    "Real-ESRGAN": Outputs("xinntao/Real-ESRGAN", ((12, 1, 256, 256),)),
}
