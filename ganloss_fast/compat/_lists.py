"""What drop-ins share that take lists: outputs of several discriminators, in and out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ganloss_fast import ops
from ganloss_fast.checks import as_outputs, check_same_device, check_tensor, describe
from ganloss_fast.losses.table import Loss


class SideTerms(NamedTuple):
    """A discriminator loss over K outputs and its terms: ``total`` is the sum of all of them."""

    total: Tensor  # []
    real: Tensor  # [K]
    fake: Tensor  # [K]


def _listed(name: str, outputs: object) -> list[Tensor]:
    """The logits of every discriminator. The originals iterate over what they get, which of a
    single tensor are its samples."""
    if isinstance(outputs, Tensor):
        raise TypeError(
            f"{name}: expected a list with the logits of each discriminator, got "
            f"{describe(outputs)}. For a single discriminator pass [logits]."
        )
    return as_outputs(name, outputs)


def side_terms(
    real_name: str, reals: object, fake_name: str, fakes: object, loss: Loss
) -> SideTerms:
    """In one call, without the statistics of ``discriminator_loss_details``. The loss has one
    segment for each side."""
    real, fake = _listed(real_name, reals), _listed(fake_name, fakes)
    if len(real) != len(fake):
        raise ValueError(
            f"{real_name} and {fake_name} must hold the same number of outputs: got {len(real)} "
            f"and {len(fake)}."
        )
    check_same_device(fake_name, fake[0], real_name, real[0])
    segments = [*loss.segments("real", real, 1.0), *loss.segments("fake", fake, 1.0)]
    computed = ops.multi_tensor_loss(segments)
    return SideTerms(computed.total, *computed.values.split(len(real)))


def generator_terms(name: str, fakes: object, loss: Loss) -> tuple[Tensor, list[Tensor]]:
    """A generator loss over all outputs, and its term for each of them, which carry gradients."""
    computed = ops.multi_tensor_loss(loss.segments("generator", _listed(name, fakes), 1.0))
    return computed.total, list(computed.values.unbind())


def as_numbers(*values: Tensor) -> list[list[float]]:
    """Several vectors as Python numbers, by one transfer from the device."""
    joined = torch.stack([value.detach() for value in values])
    if joined.is_cuda and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            "floats: Python numbers wait for the device, which a CUDA graph capture does not "
            "allow. Pass floats=False for tensors."
        )
    numbers: list[list[float]] = joined.tolist()
    return numbers


def check_maps(name: str, features: object) -> Sequence[Sequence[Tensor]]:
    """A list of feature maps for each discriminator."""
    if not isinstance(features, (list, tuple)):
        raise TypeError(
            f"{name}: expected a list with the feature maps of each discriminator, got "
            f"{describe(features)}."
        )
    for k, maps in enumerate(features):
        if not isinstance(maps, (list, tuple)):
            raise TypeError(
                f"{name}[{k}]: expected the feature maps of one discriminator in a list, got "
                f"{describe(maps)}. For a single discriminator pass [maps]."
            )
    return features


def last_of_lists(name: str, outputs: object) -> list[Tensor]:
    """The logits of discriminators that give their maps too, [maps..., logits] each. Where the
    originals index what they get, of a tensor in its place they would take the last sample."""
    if isinstance(outputs, (list, tuple)):
        for k, output in enumerate(outputs):
            if not isinstance(output, (list, tuple)):
                raise TypeError(
                    f"{name}[{k}]: expected the list [maps..., logits] of discriminator {k}, got "
                    f"{describe(output)}. Pass [logits] for a discriminator without feature maps."
                )
    return last_of_each(name, outputs)


def last_of_each(name: str, outputs: object) -> list[Tensor]:
    """The logits of every discriminator: its output, or the last of its list [maps..., logits]."""
    if not isinstance(outputs, (list, tuple)):
        raise TypeError(
            f"{name}: expected a list of outputs, one for each discriminator, got "
            f"{describe(outputs)}."
        )
    logits = []
    for k, output in enumerate(outputs):
        where = f"{name}[{k}]"
        if isinstance(output, (list, tuple)):
            if not output:
                raise ValueError(f"{where}: expected feature maps and logits, got an empty list.")
            where, output = f"{where}[-1]", output[-1]
        if isinstance(output, (list, tuple)):
            raise ValueError(
                f"{where}: expected the logits of discriminator {k}, a tensor, got "
                f"{describe(output)}. The lists are nested one level too deep: a list with an "
                "entry for each discriminator holds its logits, or its list [maps..., logits]."
            )
        logits.append(check_tensor(where, output))
    if not logits:
        raise ValueError(f"{name}: expected at least one discriminator output, got an empty list.")
    return logits
