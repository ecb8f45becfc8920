"""Plain PyTorch for everything public: the written specification of the package.

Also the fallback where no native kernel serves, the truth that tests compare with (in float64)
and the baseline of the benchmarks. Written to be read, not to be fast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ganloss_fast.losses.distributed import mean_over_ranks
from ganloss_fast.losses.table import LossLike, resolve
from ganloss_fast.ops.terms import LossOutputs, Segment, compute_dtype

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

# ---- terms -------------------------------------------------------------------------------------


def softplus(z: Tensor, sign: float, _: float) -> Tensor:
    """log(1 + exp(sign z)). Above its threshold F.softplus is the identity: 20, its default, is
    too early for float64; from 40 on the difference is below the last bit."""
    return torch.nn.functional.softplus(sign * z, threshold=40)


def hinge(z: Tensor, sign: float, margin: float) -> Tensor:
    """max(0, margin - sign z)."""
    return torch.relu(margin - sign * z)


def squared(z: Tensor, center: float, _: float) -> Tensor:
    """(z - center)^2. As a product: square's backward doubles z - center before it scales it."""
    return (z - center) * (z - center)


def linear(z: Tensor, _: float, __: float) -> Tensor:
    """z."""
    return z


def absolute(z: Tensor, _: float, __: float) -> Tensor:
    """|z|."""
    return z.abs()


# In the order of terms.TERM_NAMES.
TERM_FUNCTIONS = (softplus, hinge, squared, linear, absolute)


# ---- ops ---------------------------------------------------------------------------------------


def segment_elements(segment: Segment) -> Tensor:
    """weight * term(a - b), element by element; shaped like a."""
    dtype = compute_dtype(segment.a.dtype)
    z = segment.a.to(dtype)
    if segment.b is not None:
        z = z - segment.b.to(dtype)
    code, first, second = segment.term
    if segment.weight is None:
        return TERM_FUNCTIONS[code](z, first, second)
    if torch.is_grad_enabled() and segment.weight.requires_grad:
        raise NotImplementedError("weights: no gradient flows to the weights of a segment.")
    weight = segment.weight.to(dtype)
    z = torch.where(weight == 0, 0.0, z)  # a masked inf is not NaN, nor is its gradient
    return weight * TERM_FUNCTIONS[code](z, first, second)


def segment_value(segment: Segment) -> Tensor:
    """mean(weight * term(a - b)) of one segment."""
    return segment_elements(segment).mean()


def segment_statistics(a: Tensor) -> Tensor:
    """[4]: mean, standard deviation, mean sign and non-finite count of a segment."""
    x = a.detach().to(compute_dtype(a.dtype))
    signs = (x > 0).to(x.dtype) - (x < 0).to(x.dtype)
    nonfinite = x.isfinite().logical_not().sum().to(x.dtype)
    return torch.stack([x.mean(), (x - x.mean()).square().mean().sqrt(), signs.mean(), nonfinite])


def multi_tensor_loss(segments: Sequence[Segment], with_statistics: bool = False) -> LossOutputs:
    """Sum of ``scale * mean(weight * term(a - b))``; see :mod:`ganloss_fast.ops.terms`."""
    dtype = torch.float32
    for segment in segments:
        dtype = torch.promote_types(dtype, compute_dtype(segment.a.dtype))
    values = torch.stack([segment_value(segment).to(dtype) for segment in segments])
    scaled = [segment.scale * value for segment, value in zip(segments, values.unbind())]
    if with_statistics:
        rows = [segment_statistics(segment.a).to(dtype) for segment in segments]
        statistics = torch.stack(rows)
    else:
        statistics = values.new_empty((0, 4))
    return LossOutputs(torch.stack(scaled).sum(), values, statistics)


def lerp(real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    """``fake + alpha (real - fake)``, exact at alpha 0 and 1; alpha is 0-d, [B] or full."""
    dtype = compute_dtype(real.dtype)
    if alpha.dim() == 1:
        alpha = alpha.reshape(-1, *[1] * (real.dim() - 1))
    return torch.lerp(fake.to(dtype), real.to(dtype), alpha.to(dtype)).to(real.dtype)


def philox(counter: Tensor, key: Tensor) -> Tensor:
    """[N, 4] int64: the 32-bit words of Philox4x32-10 for counters [N, 4] under an int64 key."""
    low = 0xFFFFFFFF
    c0, c1, c2, c3 = counter.unbind(1)
    k0, k1 = key.reshape(()) & low, (key.reshape(()) >> 32) & low
    for _ in range(10):
        # The product of two 32-bit words wraps in int64, but its bits are right.
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (
            ((p1 >> 32) & low) ^ c1 ^ k0,
            p1 & low,
            ((p0 >> 32) & low) ^ c3 ^ k1,
            p0 & low,
        )
        k0, k1 = (k0 + 0x9E3779B9) & low, (k1 + 0xBB67AE85) & low
    return torch.stack([c0, c1, c2, c3], dim=1)


def words_of_blocks(seed: Tensor, blocks: Tensor) -> Tensor:
    """[N, 4] int64: the random words of the blocks of elements [N]; the block is the counter."""
    zero = torch.zeros_like(blocks)
    return philox(torch.stack([blocks & 0xFFFFFFFF, blocks >> 32, zero, zero], dim=1), seed)


def sine_cosine(turns: Tensor) -> tuple[Tensor, Tensor]:
    """Of a number of full turns in [0, 1]. The nearest quarter is taken off without rounding:
    near the zeros of sine and cosine, 2 pi turns would have lost most of their digits."""
    quarter = (4 * turns + 0.5).to(torch.int64)
    angle = (turns - quarter / 4) * (2 * torch.pi)
    is_odd = quarter % 2 == 1
    sine = torch.where(is_odd, angle.cos(), angle.sin())
    cosine = torch.where(is_odd, angle.sin(), angle.cos())
    return (
        torch.where(quarter & 2 != 0, -sine, sine),
        torch.where((quarter + 1) & 2 != 0, -cosine, cosine),
    )


def normals_of_blocks(seed: Tensor, blocks: Tensor, dtype: torch.dtype) -> Tensor:
    """[N, 4] standard normals: Box-Muller on words 0, 1 and on words 2, 3 of blocks [N]."""
    uniform = words_of_blocks(seed, blocks).to(dtype) * 2.0**-32 + 2.0**-33
    radius = (-2 * uniform[:, 0::2].log()).sqrt()
    sine, cosine = sine_cosine(uniform[:, 1::2])
    return torch.stack([radius * sine, radius * cosine], dim=2).flatten(1)


def normals(seed: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """[count] standard normals, four to a block."""
    blocks = torch.arange((count + 3) // 4, device=seed.device)
    return normals_of_blocks(seed, blocks, dtype).flatten()[:count]


def perturb(inputs: Tensor, sigma: float, seed: Tensor) -> Tensor:
    """``inputs + sigma * normals``, in row-major order whatever the layout."""
    dtype = compute_dtype(inputs.dtype)
    noise = normals(seed, inputs.numel(), dtype).reshape(inputs.shape)
    return (inputs.to(dtype) + sigma * noise).to(inputs.dtype)


PENALTY_MODES = ("two_sided", "one_sided")


def sample_norms(gradient: Tensor) -> Tensor:
    """[B]: the 2-norm of every sample, with derivatives 0 where it is 0."""
    g = gradient.to(compute_dtype(gradient.dtype))
    squared_norms = g.flatten(1).square().sum(1) if g.dim() > 1 else g.square()
    is_zero = squared_norms == 0
    return torch.where(is_zero, 0.0, torch.where(is_zero, 1.0, squared_norms).sqrt())


def norm_penalty(gradient: Tensor, mode: str, target: float, scale: float) -> tuple[Tensor, Tensor]:
    """``scale * mean_i (n_i - target)^2`` (two-sided) or of ``max(0, n_i - target)^2``."""
    norms = sample_norms(gradient)
    excess = norms - target
    if mode == "one_sided":
        excess = torch.where(excess <= 0, 0.0, excess)
    # A sample with norm 0 adds its penalty and no gradient.
    return scale * excess.square().mean(), norms.detach()


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
    return torch.relu(1 - z) if loss.name == "hinge" else (z - 1).square()


def _real_term(r: Tensor, loss: Any) -> Tensor:
    if loss.name == "bce":
        return _bce(r, loss.real_label)
    if loss.name == "hinge":
        return torch.relu(loss.margin - r)
    if loss.name == "least_squares":
        return (r - loss.real_label).square()
    return loss.drift * r.square() - r if loss.drift else -r


def _fake_term(f: Tensor, loss: Any) -> Tensor:
    if loss.name == "bce":
        return _bce(f, loss.fake_label)
    if loss.name == "hinge":
        return torch.relu(loss.margin + f)
    if loss.name == "least_squares":
        return (f - loss.fake_label).square()
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
    loss = resolve(loss)
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
    loss = resolve(loss)
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
            distance = difference.abs() if criterion == "l1" else difference.square()
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
