"""torchgan.losses.functional: logits, or what else a discriminator gives, to a reduced loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ganloss_fast.checks import check_choice, check_tensor
from ganloss_fast.compat import _toolkits
from ganloss_fast.losses.table import BCE, LeastSquares, Wasserstein
from ganloss_fast.ops import terms
from ganloss_fast.ops.terms import Segment
from ganloss_fast.penalties.gradient_penalty import penalty_from_logits
from ganloss_fast.penalties.table import NormPenalty


def minimax_generator_loss(
    dgz: Tensor, nonsaturating: bool = True, reduction: str = "mean"
) -> Tensor:
    """``bce(dgz, 1)``, or ``-bce(dgz, 0)`` for the saturating form."""
    loss = BCE(saturating=not nonsaturating)
    fake = [check_tensor("dgz", dgz)]
    return _toolkits.reduced_sides(reduction, fake=loss.segments("generator", fake, 1.0))


def minimax_discriminator_loss(
    dx: Tensor, dgz: Tensor, label_smoothing: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """``bce(dx, 1 - label_smoothing) + bce(dgz, 0)``."""
    real, fake = _toolkits.check_pair(("dx", "dgz"), dx, dgz)
    loss = BCE(real_label=1.0 - label_smoothing)
    return _toolkits.reduced_sides(
        reduction, real=loss.segments("real", [real], 1.0), fake=loss.segments("fake", [fake], 1.0)
    )


def least_squares_generator_loss(dgz: Tensor, c: float = 1.0, reduction: str = "mean") -> Tensor:
    """``(dgz - c)^2 / 2``."""
    loss = LeastSquares(generator_label=c)
    fake = [check_tensor("dgz", dgz)]
    return _toolkits.reduced_sides(reduction, fake=loss.segments("generator", fake, 0.5))


def least_squares_discriminator_loss(
    dx: Tensor, dgz: Tensor, a: float = 0.0, b: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """``((dx - b)^2 + (dgz - a)^2) / 2``."""
    real, fake = _toolkits.check_pair(("dx", "dgz"), dx, dgz)
    loss = LeastSquares(real_label=b, fake_label=a)
    return _toolkits.reduced_sides(
        reduction, real=loss.segments("real", [real], 0.5), fake=loss.segments("fake", [fake], 0.5)
    )


def wasserstein_generator_loss(fgz: Tensor, reduction: str = "mean") -> Tensor:
    """``-fgz``."""
    segments = Wasserstein().segments("generator", [check_tensor("fgz", fgz)], 1.0)
    return _toolkits.reduced_sides(reduction, fake=segments)


def wasserstein_discriminator_loss(fx: Tensor, fgz: Tensor, reduction: str = "mean") -> Tensor:
    """``fgz - fx``."""
    real, fake = _toolkits.check_pair(("fx", "fgz"), fx, fgz)
    loss = Wasserstein()
    return _toolkits.reduced_sides(
        reduction, real=loss.segments("real", [real], 1.0), fake=loss.segments("fake", [fake], 1.0)
    )


def energy_based_generator_loss(dgz: Tensor, reduction: str = "mean") -> Tensor:
    """``dgz``, the energy of generated samples."""
    return _toolkits.reduced_sides(
        reduction, fake=[Segment(check_tensor("dgz", dgz), terms.LINEAR)]
    )


def energy_based_discriminator_loss(
    dx: Tensor, dgz: Tensor, margin: float, reduction: str = "mean"
) -> Tensor:
    """``dx + max(0, margin - dgz)``."""
    real, fake = _toolkits.check_pair(("dx", "dgz"), dx, dgz)
    return _toolkits.reduced_sides(
        reduction,
        real=[Segment(real, terms.LINEAR)],
        fake=[Segment(fake, terms.hinge(1.0, margin))],
    )


def energy_based_pulling_away_term(d_hid: Tensor) -> Tensor:
    """``sum(S^2) / (n (n - 1))`` with cosines ``S``; normalised along the batch, as torchgan's."""
    n = d_hid.shape[0]
    return _toolkits.pulling_away(d_hid, axis=0).square().sum() / (n * (n - 1))


def boundary_equilibrium_generator_loss(dgz: Tensor, reduction: str = "mean") -> Tensor:
    """``dgz``, the reconstruction error of generated samples."""
    return energy_based_generator_loss(dgz, reduction)


def boundary_equilibrium_discriminator_loss(
    dx: Tensor, dgz: Tensor, k: float | Tensor, reduction: str = "mean"
) -> tuple[Tensor, Tensor, Tensor]:
    """(``dx - k dgz``, ``dx``, ``dgz``), each reduced."""
    real, fake = (
        _toolkits.plainly_reduced(energies, reduction)
        for energies in _toolkits.check_pair(("dx", "dgz"), dx, dgz)
    )
    return real - k * fake, real, fake


def wasserstein_gradient_penalty(
    interpolate: Tensor, d_interpolate: Tensor, reduction: str = "mean"
) -> Tensor:
    """``(|g| - 1)^2`` with one norm for the whole batch; lambda is yours, outside."""
    return dragan_gradient_penalty(interpolate, d_interpolate, 1.0, reduction)


def dragan_gradient_penalty(
    interpolate: Tensor, d_interpolate: Tensor, k: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """``(|g| - k)^2`` with one norm for the whole batch, a scalar whatever the reduction."""
    check_choice("reduction", reduction, _toolkits.REDUCTIONS)
    penalty = NormPenalty(1.0, target=k, norm="batch")
    return penalty_from_logits(d_interpolate, interpolate, penalty)


def mutual_information_penalty(
    c_dis: Tensor, c_cont: Tensor, dist_dis: Any, dist_cont: Any, reduction: str = "mean"
) -> Tensor:
    """Minus the mean log-likelihood of the codes, of both distributions."""
    pairs = ((dist_dis, c_dis), (dist_cont, c_cont))
    likelihoods = torch.stack([dist.log_prob(code).mean() for dist, code in pairs])
    return energy_based_generator_loss(-likelihoods, reduction)


def auxiliary_classification_loss(
    logits: Tensor, labels: Tensor, reduction: str = "mean"
) -> Tensor:
    """Cross-entropy of classes; plain PyTorch."""
    return torch.nn.functional.cross_entropy(logits, labels, reduction=reduction)
