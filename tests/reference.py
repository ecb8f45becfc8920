"""The losses and the penalty as people write them, independent of the package's table of losses.

The truth that tests compare with, in float64. Those of the ops, which serve where no kernel does,
stand beside each op in ``ganloss_fast/ops``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ganloss_fast.losses.distributed import mean_over_ranks
from ganloss_fast.losses.table import LossLike, resolve_loss
from ganloss_fast.ops.interpolate import interpolate_reference as lerp
from ganloss_fast.ops.multi_tensor_loss import multi_tensor_loss_reference as multi_tensor_loss
from ganloss_fast.ops.norm_penalty import norm_penalty_reference as norm_penalty
from ganloss_fast.ops.perturb import perturb_reference as perturb
from ganloss_fast.ops.terms import TERM_FUNCTIONS, compute_dtype

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = [
    "discriminator_loss",
    "feature_matching_loss",
    "generator_loss",
    "gradient_penalty",
    "interpolate",
    "lerp",
    "multi_tensor_loss",
    "norm_penalty",
    "perturb",
]

softplus = TERM_FUNCTIONS["softplus"]

# ---- adversarial losses ------------------------------------------------------------------------


def _listed(outputs: Tensor | Sequence[Tensor]) -> list[Tensor]:
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    return [t.to(compute_dtype(t.dtype)) for t in outputs]


def _bce(z: Tensor, target: float | Tensor) -> Tensor:
    """-t log(sigmoid(z)) - (1 - t) log(1 - sigmoid(z)), where a factor 0 removes its term."""
    t = torch.as_tensor(target, dtype=z.dtype, device=z.device)
    towards_real, towards_fake = softplus(z, -1.0, 0.0), softplus(z, 1.0, 0.0)
    return torch.where(t == 0, 0.0, t * towards_real) + torch.where(
        t == 1, 0.0, (1 - t) * towards_fake
    )


def _phi(z: Tensor, loss: Any) -> Tensor:
    """The function of a relativistic loss: small where z is high."""
    if loss.name == "bce":
        return softplus(z, -1.0, 0.0)
    if loss.name == "hinge":
        return torch.relu(1 - z)
    assert loss.name == "least_squares", loss
    return (z - 1).square()


def _real_term(r: Tensor, loss: Any) -> Tensor:
    if loss.name == "bce":
        return _bce(r, loss.real_label)
    if loss.name == "hinge":
        return torch.relu(loss.margin - r)
    if loss.name == "least_squares":
        return (r - loss.real_label).square()
    assert loss.name == "wasserstein", loss
    return loss.drift * r.square() - r if loss.drift else -r


def _fake_term(f: Tensor, loss: Any) -> Tensor:
    if loss.name == "bce":
        return _bce(f, loss.fake_label)
    if loss.name == "hinge":
        return torch.relu(loss.margin + f)
    if loss.name == "least_squares":
        return (f - loss.fake_label).square()
    assert loss.name == "wasserstein", loss
    return f


def _generator_term(f: Tensor, loss: Any) -> Tensor:
    if loss.name == "bce":
        if loss.saturating:
            return -_bce(f, loss.fake_label)
        return _bce(f, loss.generator_label)
    if loss.name == "hinge" and loss.generator_form == "hinge":
        return torch.relu(loss.margin - f)
    if loss.name == "least_squares":
        return (f - loss.generator_label).square()
    assert loss.name in ("wasserstein", "hinge"), loss
    return -f


def _masks(mask: Any, count: int) -> list:
    return list(mask) if isinstance(mask, (list, tuple)) else [mask] * count


def _masked(term: Callable[[Tensor], Tensor], z: Tensor, mask: Any, normalize: bool) -> Tensor:
    """The elements of a term, weighted. What is masked with 0 may be infinite."""
    if mask is None:
        return term(z)
    mask = mask.to(z.dtype)
    if normalize:
        mask = mask / mask.mean()
    return mask * term(torch.where(mask == 0, 0.0, z))


def _mean(logits: Tensor, group: ProcessGroup | None) -> Tensor:
    return logits.mean() if group is None else mean_over_ranks(logits.mean(), group)


def _reduce(per_output: list[Tensor], reduction: str) -> Tensor:
    stacked = torch.stack(per_output)
    return stacked.sum() if reduction == "sum" else stacked.mean()


def _reduced(per_output: list[list[Tensor]], reduction: str, outputs: str, is_list: bool) -> Any:
    """From the elements of the terms of every output."""
    if reduction == "none":
        terms = [list(elements) if is_list else elements[0] for elements in zip(*per_output)]
        return terms[0] if len(terms) == 1 else tuple(terms)
    of_output = torch.sum if reduction == "sum" else torch.mean
    return _reduce(
        [torch.stack([of_output(term) for term in terms]).sum() for terms in per_output], outputs
    )


def discriminator_loss(
    real: Tensor | Sequence[Tensor],
    fake: Tensor | Sequence[Tensor],
    loss: LossLike,
    *,
    real_weight: float | Tensor = 1.0,
    fake_weight: float | Tensor = 1.0,
    real_mask: Any = None,
    fake_mask: Any = None,
    normalize_by_mask: bool = False,
    reduction: str = "mean",
    output_reduction: str = "sum",
    process_group: ProcessGroup | None = None,
) -> Tensor:
    """The plain form of :func:`ganloss_fast.discriminator_loss`."""
    loss = resolve_loss(loss)
    reals, fakes = _listed(real), _listed(fake)
    masks = zip(_masks(real_mask, len(reals)), _masks(fake_mask, len(fakes)), strict=True)
    per_output = []
    for r, f, (r_mask, f_mask) in zip(reals, fakes, masks, strict=True):
        if loss.relativistic == "paired":
            per_output.append([_phi(r - f, loss)])
            continue
        if loss.relativistic == "average":
            real_mean, fake_mean = (_mean(logits, process_group) for logits in (r, f))
            if loss.detach_means:
                real_mean, fake_mean = real_mean.detach(), fake_mean.detach()
            real_term, fake_term = _phi(r - fake_mean, loss), _phi(-(f - real_mean), loss)
        else:
            real_term = _masked(lambda z: _real_term(z, loss), r, r_mask, normalize_by_mask)
            fake_term = _masked(lambda z: _fake_term(z, loss), f, f_mask, normalize_by_mask)
        per_output.append([real_weight * real_term, fake_weight * fake_term])
    return _reduced(per_output, reduction, output_reduction, not isinstance(real, Tensor))


def generator_loss(
    fake: Tensor | Sequence[Tensor],
    loss: LossLike,
    *,
    real: Tensor | Sequence[Tensor] | None = None,
    weight: float | Tensor = 1.0,
    mask: Any = None,
    normalize_by_mask: bool = False,
    reduction: str = "mean",
    output_reduction: str = "sum",
    process_group: ProcessGroup | None = None,
) -> Tensor:
    """The plain form of :func:`ganloss_fast.generator_loss`."""
    loss = resolve_loss(loss)
    fakes = _listed(fake)
    reals = fakes if real is None else _listed(real)
    per_output = []
    for f, r, one in zip(fakes, reals, _masks(mask, len(fakes)), strict=True):
        if real is None:
            terms = [_masked(lambda z: _generator_term(z, loss), f, one, normalize_by_mask)]
        elif loss.relativistic == "paired":
            terms = [_phi(f - r, loss)]
        else:
            real_mean, fake_mean = (_mean(logits, process_group) for logits in (r, f))
            terms = [_phi(-(r - fake_mean), loss), _phi(f - real_mean, loss)]
        per_output.append([weight * term for term in terms])
    return _reduced(per_output, reduction, output_reduction, not isinstance(fake, Tensor))


def feature_matching_loss(
    real_features: Sequence,
    fake_features: Sequence,
    *,
    criterion: str = "l1",
    detach_real: bool = True,
    include_last: bool = True,
    layer_reduction: str = "sum",
    discriminator_reduction: str = "sum",
    weight: float | Tensor = 1.0,
) -> Tensor:
    """The plain form of :func:`ganloss_fast.feature_matching_loss`."""
    if isinstance(real_features[0], Tensor):
        real_features, fake_features = [real_features], [fake_features]
    per_discriminator = []
    for real_maps, fake_maps in zip(real_features, fake_features, strict=True):
        per_layer = []
        for r, f in zip(_listed(real_maps), _listed(fake_maps), strict=True):
            difference = f - (r.detach() if detach_real else r)
            distance = {"l1": torch.abs, "mse": torch.square}[criterion](difference)
            per_layer.append(distance.mean())
        per_discriminator.append(
            _reduce(per_layer if include_last else per_layer[:-1], layer_reduction)
        )
    return weight * _reduce(per_discriminator, discriminator_reduction)


# ---- gradient penalty --------------------------------------------------------------------------


def interpolate(
    real: Tensor,
    fake: Tensor,
    alpha: float | Tensor | None = None,
    *,
    rng: torch.Generator | None = None,
) -> Tensor:
    """The plain form of :func:`ganloss_fast.interpolate`."""
    dtype = compute_dtype(real.dtype)
    if alpha is None:
        alpha = torch.rand(real.shape[0], generator=rng, device=real.device, dtype=dtype)
    alpha = torch.as_tensor(alpha, dtype=dtype, device=real.device)
    if alpha.shape != real.shape and alpha.dim() > 0:
        alpha = alpha.flatten()
    return lerp(real, fake, alpha)


def gradient_penalty(
    critic: Callable[..., Tensor],
    real: Tensor,
    fake: Tensor,
    *,
    critic_args: Sequence = (),
    weight: float | Tensor = 10.0,
    target: float = 1.0,
    one_sided: bool = False,
    alpha: float | Tensor | None = None,
    rng: torch.Generator | None = None,
) -> Tensor:
    """The plain form of :func:`ganloss_fast.gradient_penalty`."""
    x_hat = interpolate(real, fake, alpha, rng=rng)
    with torch.enable_grad():
        if not x_hat.requires_grad:
            x_hat.requires_grad_(True)
        logits = critic(x_hat, *critic_args)
        ones = torch.ones_like(logits)
        (gradient,) = torch.autograd.grad(logits, x_hat, ones, create_graph=True)
    mode = "one_sided" if one_sided else "two_sided"
    return weight * norm_penalty(gradient, mode, target, 1.0)[0]
