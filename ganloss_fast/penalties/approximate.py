"""Approximated R1: a finite difference instead of a double backward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ganloss_fast import ops
from ganloss_fast.checks import (
    Weight,
    check_choice,
    check_number,
    check_same_device,
    check_tensor,
    check_weight,
    describe,
    scaled,
    warn_caller,
)
from ganloss_fast.ops.terms import autocast_dtype, compute_dtype
from ganloss_fast.penalties.chunked import check_chunk_size, sum_over_chunks
from ganloss_fast.penalties.critic.arguments import BatchArgs, CriticArguments, doubled_rows
from ganloss_fast.penalties.critic.call import (
    Critic,
    CriticArgs,
    CriticCall,
    Differentiation,
    InvScale,
    as_logits,
    critic_call,
)
from ganloss_fast.penalties.critic.few_logits import warn_of_few_logits
from ganloss_fast.penalties.critic.gradient import (
    CriticRun,
    is_functional,
    refusing_changes_of,
    weights_of_outputs,
)
from ganloss_fast.penalties.critic.modules import before_first_run, is_power_iteration
from ganloss_fast.penalties.critic.random_state import RandomState
from ganloss_fast.penalties.critic.reach import Reach, unwrapped
from ganloss_fast.penalties.points import Samples, as_samples

Normalization = Literal["mean", "sigma", "sample_sum"]
Pairs = list[tuple[Tensor, Tensor]]  # logits on samples, and on the same with noise


def perturb(inputs: Tensor, sigma: float, seed: Tensor) -> Tensor:
    """Adds normal noise that depends on nothing but the seed and the element's index.

    .. math:: inputs + sigma \\cdot n, \\qquad n \\sim N(0, 1)

    The random words (Philox4x32-10; Salmon et al., 2011) are the same on every backend and
    device, the normals agree to 4 units in the last place. Indices are row-major whatever the
    memory layout; in another layout than that, the samples are copied. The gradient passes through.

    Args:
        inputs: tensor of any shape.
        sigma: standard deviation of the noise.
        seed: one int64 element on the device of ``inputs``. The kernel reads it there, so nothing
            waits for it, and a captured CUDA graph or a compiled step can take a new one each time.

    Returns:
        Tensor like ``inputs``, in its dtype (the sum is float32 for half, rounded once) and memory
        layout.

    Raises:
        ValueError: if the seed lies on another device or has several elements.
        TypeError: if the seed is not an int64 tensor.
    """
    check_tensor("inputs", inputs)
    sigma = check_number("sigma", sigma)
    if not isinstance(seed, Tensor) or seed.dtype != torch.int64:
        raise TypeError(f"seed: expected an int64 tensor, got {describe(seed)}.")
    if seed.numel() != 1:
        raise ValueError(f"seed: expected one element, got shape {list(seed.shape)}.")
    check_same_device("seed", seed, "inputs", inputs)
    return ops.perturb(inputs, sigma, seed)


def approximate_r1_penalty(
    critic: Critic,
    inputs: Samples,
    sigma: float = 0.01,
    *,
    critic_args: CriticArgs = (),
    weight: Weight = 100.0,
    normalization: Normalization = "mean",
    logits: Tensor | Sequence[Tensor] | None = None,
    single_forward: bool = False,
    seed: Tensor | None = None,
    inv_scale: InvScale = None,
    chunk_size: int | None = None,
    batch_args: BatchArgs = None,
) -> Tensor:
    """Approximated R1 (APT; Lin et al., 2025): needs no double backward.

    .. math:: weight \\cdot E[(D(x) - D(x + \\sigma n))^2], \\qquad n \\sim N(0, 1)

    For critics that cannot be differentiated twice (flash attention, FSDP) or are compiled. For
    small sigma, ``weight * sigma**2 = gamma / 2`` of exact R1. The same function on generated
    samples is the approximated R2. The difference is taken in float32 whatever the precision of
    the logits, and the gradient flows through both logits.

    Both logits are of one critic: in eager mode, spectral norms stand still in the second forward
    pass and it draws the random numbers of the first (dropout): from the global generators of
    torch, numpy and Python, and from generators that its code names or its modules hold. While
    compiling, put such layers in evaluation mode.

    Args:
        critic: called as ``critic(x, *critic_args)``; returns a tensor of logits or a flat list of
            them, whose squared differences are added; a :class:`Call` to weight these, or for a
            tuple.
        inputs: samples [B, ...], or a tuple of inputs, each with noise of its own.
        sigma: deviation of the noise: 0.01 for images and 0.1 for videos in APT.
        critic_args: further arguments of the critic, such as labels: a tuple, or a dict of
            arguments by name.
        weight: a number or a 0-d tensor.
        normalization: ``"mean"`` of the squared difference over all logits (APT, FastGen);
            ``"sigma"``, the same divided by sigma^2 (Self-Forcing); ``"sample_sum"``, summed
            over a sample's logits, mean over samples (stable-audio-tools).
        logits: the critic's outputs on ``inputs``, if the step has them: saves a forward pass.
            Spectral norms must not have moved since. A critic that draws random numbers
            (dropout) gets a warning.
        single_forward: run the critic once on both, concatenated. Not with ``logits`` or
            ``chunk_size``. A critic that draws random numbers gets a warning.
        seed: int64 tensor with one element; None draws one on the device.
        inv_scale: see :func:`gradient_penalty`; needed only with ``chunk_size``, which computes
            the gradients in this call.
        chunk_size: samples at a time, see :class:`Differentiation`.
        batch_args: which of the critic's further arguments hold one row for each sample: they are
            doubled with ``single_forward`` and sliced with ``chunk_size``. Positions and names of
            ``critic_args``; None: every tensor with as many rows as there are samples.

    Returns:
        0-d tensor, float32 (float64 for float64 logits).

    Raises:
        ValueError: if options contradict each other, ``sigma`` is not positive, the critic is
            detached or changes its input in place, or as ``chunk_size`` of
            :func:`gradient_penalty` says.
        TypeError: if the critic does not return a tensor or a flat list of tensors.
    """
    weight = check_weight("weight", weight)
    check_choice("normalization", normalization, ("mean", "sigma", "sample_sum"))
    points = as_samples("inputs", inputs)
    sigma = check_number("sigma", sigma)
    if sigma <= 0:
        raise ValueError(f"sigma: expected a number > 0, got {sigma}.")
    if single_forward and logits is not None:
        raise ValueError("single_forward: the logits are given, so there is only one forward.")
    if chunk_size is not None:
        check_chunk_size(chunk_size)
        if single_forward or logits is not None:
            raise ValueError("chunk_size: not with single_forward, and not with logits.")
    how = Differentiation(chunk_size=chunk_size, batch_args=batch_args)
    call = critic_call(critic, critic_args, inv_scale, how)
    if call.logit_reduction != "sum":
        raise ValueError("logit_reduction: not for finite differences; see normalization.")
    if seed is None:
        seed = torch.randint(2**63 - 1, (), device=points[0].device, dtype=torch.int64)
    noisy = [perturb(point, sigma, seed + k * _SEED_STEP % 2**63) for k, point in enumerate(points)]
    difference = _Difference(sigma, weight, normalization, call.output_weights)
    if chunk_size is not None:
        return _in_chunks([*points, *noisy], call, difference, chunk_size)
    if single_forward:
        pairs = _run_joined(call, points, noisy, sigma)
    else:
        clean = None
        if logits is not None:
            clean = as_logits(logits, "logits", call.output_weights is not None)
        pairs = _run_both(call, points, noisy, sigma, clean)
    value = difference(pairs)
    warn_of_few_logits(call.critic, [moved for _, moved in pairs], points[0].shape[0])
    return value


_SEED_STEP = 0x9E3779B97F4A7C15  # of the second input, the third: far from any step's next seed


@dataclass(frozen=True, eq=False)  # see PenaltyCall
class _Difference:
    """The penalty of pairs of logits."""

    sigma: float
    weight: Weight
    normalization: Normalization
    output_weights: Sequence[float] | None

    def __call__(self, pairs: Pairs) -> Tensor:
        factors = weights_of_outputs(self.output_weights, len(pairs))
        values = [factor * self._of_output(*pair) for factor, pair in zip(factors, pairs)]
        total = values[0] if len(values) == 1 else torch.stack(values).sum()
        return scaled(self.weight, total)

    def _of_output(self, clean: Tensor, moved: Tensor) -> Tensor:
        if clean.shape != moved.shape:
            raise ValueError(
                f"logits: expected shape {list(moved.shape)} as the critic returns, got "
                f"{list(clean.shape)}."
            )
        if self.normalization == "sample_sum" and clean.dim() == 0:
            raise ValueError(
                'normalization: "sample_sum" needs one logit or more for each sample, but the '
                "critic returns a 0-d output."
            )
        dtype = compute_dtype(clean.dtype)
        squares = (clean.to(dtype) - moved.to(dtype)).square()
        if self.normalization == "sample_sum":
            return squares.sum() / clean.shape[0]
        return squares.mean() / self.sigma**2 if self.normalization == "sigma" else squares.mean()


def _in_chunks(
    points: Sequence[Tensor], call: CriticCall, difference: _Difference, chunk_size: int
) -> Tensor:
    """``points``: the samples, then the same with noise."""
    inputs = len(points) // 2

    def run(own: CriticCall, parts: Sequence[Tensor]) -> CriticRun:
        pairs = _run_both(own, parts[:inputs], parts[inputs:], difference.sigma)
        return CriticRun([logit for pair in pairs for logit in pair], list(parts), [])

    def of_slice(own: CriticCall, ran: CriticRun, part: slice, share: float) -> Tensor:
        return difference(list(zip(ran.logits[::2], ran.logits[1::2]))) * share

    return sum_over_chunks(points, call, chunk_size, run, of_slice)


def _run_joined(
    call: CriticCall, points: Sequence[Tensor], noisy: Sequence[Tensor], sigma: float
) -> Pairs:
    """One forward pass on samples and noisy samples together."""
    arguments = CriticArguments(call.args, call.kwargs, points[0].shape[0], call.how.batch_args)
    args, kwargs = arguments.mapped(lambda v, batched: doubled_rows(v) if batched else v)
    both = [torch.cat(pair) for pair in zip(points, noisy)]
    call = replace(call, args=args, kwargs=kwargs)
    joint = _second_outputs(call, both, sigma, None, frozen=False)
    for logit in joint:
        if logit.dim() == 0 or logit.shape[0] % 2:
            raise ValueError(
                "single_forward: expected logits for both halves of the joined batch, got shape "
                f"{list(logit.shape)} from the critic."
            )
    halves = [logit.split(logit.shape[0] // 2) for logit in joint]
    return [(clean, moved) for clean, moved in halves]


def _run_both(
    call: CriticCall,
    points: Sequence[Tensor],
    noisy: Sequence[Tensor],
    sigma: float,
    clean: list[Tensor] | None = None,
) -> Pairs:
    """Two forward passes of one critic, or the second where ``clean`` are the logits of it."""
    random = None
    if clean is None and not is_functional():
        random = RandomState(points[0].device, Reach(call.critic).generators)
    if clean is None:
        clean = _outputs(call, points)
    moved = _second_outputs(call, noisy, sigma, random, frozen=True)
    if len(clean) != len(moved):
        raise ValueError(
            f"logits: expected {len(moved)} outputs as the critic returns, got {len(clean)}."
        )
    return list(zip(clean, moved))


def _outputs(call: CriticCall, points: Sequence[Tensor]) -> list[Tensor]:
    if is_functional():
        return call.outputs(points)
    with refusing_changes_of(points):
        logits = call.outputs(points)
    if torch.is_grad_enabled() and not any(logit.requires_grad for logit in logits):
        raise ValueError(
            "critic: its output has no graph, so the penalty would have no gradient; it may be "
            "detached or frozen. To log the value alone, call this under torch.no_grad()."
        )
    return logits


def _second_outputs(
    call: CriticCall,
    points: Sequence[Tensor],
    sigma: float,
    random: RandomState | None,
    frozen: bool,
) -> list[Tensor]:
    """Logits with the noise in them, from the critic that gave those without.

    Draws what was drawn from ``random`` on, or else warns of a critic that draws. ``frozen`` keeps
    spectral norms from another power iteration.
    """
    if is_functional():
        return _outputs(call, points)
    seen: set[torch.nn.Module] = set()
    precisions: set[torch.dtype] = set()
    power_iterations: list[torch.nn.Module] = []

    def see(running: torch.nn.Module) -> None:
        for module in set(running.modules()) - seen:
            seen.add(module)
            precisions.update(p.dtype for p in module.parameters(recurse=False))
            if frozen and module.training and is_power_iteration(module):
                module.training = False
                power_iterations.append(module)

    before = None
    if random is None:
        before = RandomState(points[0].device, Reach(call.critic).generators)
    else:
        random.restore()
    module = unwrapped(call.critic)
    try:
        if module is not None:
            see(module)
            logits = _outputs(call, points)
        else:
            with before_first_run(call.critic, see):
                logits = _outputs(call, points)
    finally:
        for module in power_iterations:
            module.training = True
    if before is not None and before.has_moved():
        warn_caller(
            "critic: it draws random numbers (dropout?), others with noise than without, so the "
            "penalty measures these too. Leave out logits and single_forward: the second forward "
            "pass then draws the same. Or put the critic in evaluation mode.",
        )
    precisions.update(tensor.dtype for tensor in (*points, *logits))
    autocast = autocast_dtype(points[0].device)
    if autocast is not None:
        precisions.add(autocast)
    _warn_if_lost(sigma, {dtype for dtype in precisions if dtype.is_floating_point})
    return logits


def _warn_if_lost(sigma: float, precisions: set[torch.dtype]) -> None:
    """``precisions``: all in which the critic sees the noise, or gives logits."""
    coarsest = max(precisions, key=lambda dtype: torch.finfo(dtype).eps)
    eps = torch.finfo(coarsest).eps
    if sigma < 8 * eps:
        warn_caller(
            f"sigma: {sigma} is too small for a critic in {coarsest}, whose rounding of samples "
            "and logits is of the same size: the penalty will be too large (+50 % measured for "
            f"sigma 0.01 in bfloat16). Use sigma >= {8 * eps:.3g} or run the critic in float32 "
            "here.",
        )
