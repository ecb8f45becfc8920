"""The gradient of a critic with respect to its inputs, differentiable again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ganloss_fast._torch import BatchNorm, is_functorch_active
from ganloss_fast.checks import check_number, describe
from ganloss_fast.graph_cut import second_order
from ganloss_fast.graph_cut.hooks import is_compiled
from ganloss_fast.graph_cut.rows import walk
from ganloss_fast.ops.terms import compute_dtype
from ganloss_fast.penalties.critic.call import CriticCall, InvScale
from ganloss_fast.penalties.critic.few_logits import warn_of_few_logits
from ganloss_fast.penalties.critic.modules import old_norms, warns_if_samples_interact
from ganloss_fast.penalties.critic.traced_functions import count_losing, refuse_losing
from ganloss_fast.penalties.critic.wrapped import refuse_wrapped_graph

INDEPENDENT = (
    "critic: its output does not depend on its input through autograd; it may be detached, or "
    "computed under no_grad."
)
COMPILED_CRITIC = (
    "critic: it was compiled with torch.compile, which cannot be differentiated twice. Compile "
    "the function that computes the penalty instead, which works and is faster: "
    "step = torch.compile(lambda real, fake: gradient_penalty(critic, real, fake)) with the "
    "critic as it was before torch.compile."
)


def is_functional() -> bool:
    """Whether a tracer or a functorch transform is at work: autograd.grad does not serve there."""
    return torch.compiler.is_compiling() or is_functorch_active()


@dataclass(frozen=True)
class InputGradients:
    """Gradients, one for each input, and a 0-d factor that is 1, or NaN where stock autograd
    would have made NaN gradients of an inf in the critic. None: nothing was cut."""

    gradients: list[Tensor]
    signal: Tensor | None = None

    def signalled(self, penalty: Tensor) -> Tensor:
        return penalty if self.signal is None else penalty * self.signal.to(penalty.dtype)


def scales(inv_scale: InvScale, like: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """(scale, 1 / scale) as 0-d tensors, without asking the device for a value."""
    if inv_scale is None:
        return None, None
    dtype = compute_dtype(like.dtype)
    if hasattr(inv_scale, "is_enabled") and hasattr(inv_scale, "scale"):  # a GradScaler
        if torch.compiler.is_compiling():
            raise TypeError(
                "inv_scale: a GradScaler cannot be traced. Pass 1 / its scale to the compiled "
                "function, as a 0-d tensor: torch.tensor(1 / scaler.get_scale())."
            )
        # get_scale() would wait for the device; scaling a one gives the same number as a tensor.
        scale = inv_scale.scale(torch.ones((), device=like.device, dtype=dtype))
        return scale, scale.reciprocal()
    if isinstance(inv_scale, Tensor):
        if inv_scale.numel() != 1:
            raise ValueError(f"inv_scale: expected one value, got {describe(inv_scale)}.")
        inverse = inv_scale.detach().reshape(()).to(like.device, dtype)
    else:
        if check_number("inv_scale", inv_scale) <= 0:
            raise ValueError(f"inv_scale: expected a number > 0, got {inv_scale}.")
        inverse = torch.full((), float(inv_scale), device=like.device, dtype=dtype)
    return inverse.reciprocal(), inverse


def unscaled(gradients: Sequence[Tensor], inverse: Tensor | None) -> list[Tensor]:
    """Divided by the loss scale, out of place and in float32 at least: half would lose them."""
    if inverse is None:
        return list(gradients)
    return [gradient.to(inverse.dtype) * inverse for gradient in gradients]


def weights_of_outputs(weights: Sequence[float] | None, outputs: int) -> Sequence[float]:
    if weights is None:
        return [1.0] * outputs
    if len(weights) != outputs:
        raise ValueError(
            f"output_weights: expected one for each of the {outputs} outputs of the critic, got "
            f"{len(weights)}."
        )
    return [float(weight) for weight in weights]


def directions_of(call: CriticCall, logits: Sequence[Tensor], scale: Tensor | None) -> list[Tensor]:
    """What each logit counts in the sum that is differentiated."""
    weights = weights_of_outputs(call.output_weights, len(logits))
    directions = []
    for logit, weight in zip(logits, weights):
        if call.logit_reduction == "mean":
            weight = weight / max(logit.numel(), 1)
        direction = torch.full_like(logit, weight)
        directions.append(direction if scale is None else direction * scale.to(direction.dtype))
    return directions


def gradients_of(
    call: CriticCall,
    logits: Sequence[Tensor],
    points: Sequence[Tensor],
    hidden: Sequence[Tensor] = (),
    unrelated: str | None = None,
) -> InputGradients:
    """Gradients of logits that were computed from ``points``, with the graph cut.

    ``unrelated`` is what to say of logits that were not, where there is no critic to blame.
    """
    refuse_unsuitable(logits, points)
    scale, inverse = scales(call.inv_scale, points[0])
    directions = directions_of(call, logits, scale)
    gradients = stock_gradients(call, logits, points, directions, unrelated)
    return with_graph_cut(call, logits, points, gradients, inverse, hidden)


def refuse_unsuitable(logits: Sequence[Tensor], points: Sequence[Tensor]) -> None:
    """Logits that cannot be differentiated, or not twice."""
    if is_functional():
        raise RuntimeError(
            "torch.compile and torch.func cannot differentiate outputs that were computed "
            "before: they need the critic itself. Use r1_penalty or gradient_penalty there, or "
            "keep this call outside of the compiled function."
        )
    if not any(logit.requires_grad for logit in logits):
        raise ValueError(INDEPENDENT)
    refuse_forward_mode(logits)
    refuse_wrapped_graph(logits, points)


def stock_gradients(
    call: CriticCall,
    logits: Sequence[Tensor],
    points: Sequence[Tensor],
    directions: Sequence[Tensor],
    unrelated: str | None = None,
) -> tuple[Tensor, ...]:
    """Gradients of the logits, weighted with ``directions``, as autograd leaves them."""
    differentiable = [k for k, logit in enumerate(logits) if logit.requires_grad]
    try:
        gradients = torch.autograd.grad(
            [logits[k] for k in differentiable],
            points,
            [directions[k] for k in differentiable],
            create_graph=torch.is_grad_enabled(),
            retain_graph=True,
            allow_unused=True,
        )
    except RuntimeError as error:
        # What a compiled critic says depends on whether it had an ordinary backward before.
        if any(map(is_compiled, walk([logit.grad_fn for logit in logits]))):
            raise RuntimeError(COMPILED_CRITIC) from error
        raise
    for k, gradient in enumerate(gradients):
        if gradient is None:
            which = "its input" if len(points) == 1 else f"input {k}"
            raise ValueError(unrelated or f"critic: its output does not depend on {which}.")
    warn_of_few_logits(call.critic, logits, points[0].shape[0])
    return gradients


def with_graph_cut(
    call: CriticCall,
    logits: Sequence[Tensor],
    points: Sequence[Tensor],
    gradients: tuple[Tensor, ...],
    inverse: Tensor | None,
    hidden: Sequence[Tensor] = (),
) -> InputGradients:
    """Stock gradients with what carries zeros removed, divided by the loss scale."""
    if not torch.is_grad_enabled():
        return InputGradients(unscaled(gradients, inverse))
    signal = None
    if call.how.graph_cut != "off":
        signal = second_order.finite_signal([*logits, *points], compute_dtype(points[0].dtype))
    if signal is None or second_order.is_known_nonfinite(signal):
        if any(map(is_compiled, walk([gradient.grad_fn for gradient in gradients]))):
            raise RuntimeError(COMPILED_CRITIC)
        if call.how.zero_grads == "all":
            parameters = second_order.parameters_of(call.critic, logits)
            gradients = tuple(second_order.with_zeros(gradients, parameters, hidden))
        return InputGradients(unscaled(gradients, inverse))
    parameters = []
    if call.how.zero_grads == "all":
        parameters = second_order.parameters_of(call.critic, logits)
    fast_weights = call.how.graph_cut == "fast"
    cut = second_order.cut(gradients, call.how.zero_grads, parameters, hidden, fast_weights)
    if cut.compiled:  # torch would say so, but only in the backward
        raise RuntimeError(COMPILED_CRITIC)
    return InputGradients(unscaled(cut.grads, inverse), signal if cut.cut else None)


def input_gradients(call: CriticCall, points: Sequence[Tensor]) -> InputGradients:
    """Runs the critic at ``points`` and differentiates the sum of its logits."""
    if is_functional():
        return _functional_gradients(call, points)
    return gradients_of(call, *run_critic(call, points))


class CriticRun(NamedTuple):
    """Logits; the inputs that they were computed from, which require grad; and those of these
    that no caller has seen."""

    logits: list[Tensor]
    inputs: list[Tensor]
    hidden: list[Tensor]


def run_critic(call: CriticCall, points: Sequence[Tensor]) -> CriticRun:
    if torch.is_inference_mode_enabled() or any(point.is_inference() for point in points):
        raise RuntimeError(
            "critic: a penalty needs autograd, which torch.inference_mode() switches off for good. "
            "Use torch.no_grad() around the penalty instead, and clone() samples that were made "
            "under inference mode."
        )
    refuse_forward_mode(points)
    with torch.enable_grad(), warns_if_samples_interact(call.critic):
        inputs = [p if p.requires_grad else p.detach().requires_grad_() for p in points]
        hidden = [new for new, given in zip(inputs, points) if new is not given]
        with refusing_changes_of(inputs):
            logits = call.outputs(inputs)
    return CriticRun(logits, inputs, hidden)


@contextlib.contextmanager
def refusing_changes_of(inputs: Sequence[Tensor]) -> Iterator[None]:
    """Around a critic in eager mode: refuses one that changes its inputs in place."""
    versions = [_version(x) for x in inputs]
    try:
        yield
    except RuntimeError as error:
        if "leaf Variable that requires grad" in str(error):
            raise ValueError(IN_PLACE) from error
        raise
    if versions != [_version(x) for x in inputs]:
        raise ValueError(IN_PLACE)


def _version(tensor: Tensor) -> int:
    """How often it was changed in place; tensors of inference mode do not count."""
    return 0 if tensor.is_inference() else tensor._version


@contextlib.contextmanager
def explaining_missing_derivatives() -> Iterator[None]:
    """Around a backward of a penalty: says what to do about torch's missing second derivatives."""
    try:
        yield
    except RuntimeError as error:
        if "derivative for" not in str(error) or "not implemented" not in str(error):
            raise
        raise RuntimeError(
            f"critic: {error}, so it cannot be differentiated twice. For attention, choose the "
            "math backend: with torch.nn.attention.sdpa_kernel(SDPBackend.MATH). Otherwise "
            "replace the operation, or use approximate_r1_penalty."
        ) from error


IN_PLACE = (
    "critic: it changes its input in place, so the gradient with respect to the input that it "
    "was given is not defined. Make its first operation out of place, or pass "
    "lambda x: critic(x.clone())."
)


def _functional_gradients(call: CriticCall, points: Sequence[Tensor]) -> InputGradients:
    """The same under torch.compile and torch.func, where autograd.grad is not to be had."""
    if not is_functional():  # traced as far as the call of this, and given up here
        return torch.compiler.disable(input_gradients)(call, points)  # type: ignore[no-any-return]
    refuse_untraceable(call.critic)
    scale, inverse = scales(call.inv_scale, points[0])

    def total(*inputs: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            # Views, which Dynamo knows to require grad: of the inputs as torch.func.grad makes
            # them it does not, and skips the backward of an autograd.Function that comes first.
            inputs = tuple(x.view_as(x) for x in inputs)
        try:
            logits = call.outputs(inputs)
        except RuntimeError as error:
            if "leaf Variable that requires grad" in str(error):
                raise ValueError(IN_PLACE) from error
            if "mutate a captured Tensor" in str(error):
                raise ValueError(_moving_buffers(call.critic)) from error
            raise
        if not any(logit.requires_grad for logit in logits):
            raise ValueError(INDEPENDENT)
        warn_of_few_logits(call.critic, logits, points[0].shape[0])
        parts = [
            (logit * direction).sum()
            for logit, direction in zip(logits, directions_of(call, logits, scale))
        ]
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum()

    before = count_losing() if torch.compiler.is_dynamo_compiling() else ""
    gradients = torch.func.grad(total, argnums=tuple(range(len(points))))(*points)
    if torch.compiler.is_dynamo_compiling():
        refuse_losing(before)
    signal = _zero_of_parameters(call.critic) if call.how.zero_grads == "all" else None
    return InputGradients(unscaled(gradients, inverse), None if signal is None else signal + 1)


def _moving_buffers(critic: Callable[..., Any]) -> str:
    """What to say of a critic that changes a tensor other than its input in place."""
    which = "a tensor of its own"
    if isinstance(critic, torch.nn.Module):
        names = [name for name, _ in critic.named_buffers()]
        which = f"a tensor of its own, such as one of its buffers ({', '.join(names) or 'none'})"
    return (
        f"critic: it changes {which} in place (a counter, a moving average), which torch.func "
        "and torch.compile cannot follow in a penalty. Put the layer that does so in evaluation "
        "mode, update it outside of the penalty, or use an eager penalty."
    )


def _zero_of_parameters(critic: Callable[..., Any]) -> Tensor | None:
    """0-d, exactly 0, and dependent on every parameter: each then gets a gradient, if a zero."""
    if not isinstance(critic, torch.nn.Module):
        raise ValueError(
            'zero_grads: while compiling, "all" needs a critic that is a module: the parameters '
            "that a function uses are not known."
        )
    zeros = [(p * 0).sum() for p in critic.parameters() if p.requires_grad]
    return torch.stack(zeros).sum() if zeros else None


def refuse_untraceable(critic: Callable[..., Any]) -> None:
    """torch.func.grad cannot follow what these layers change outside of it."""
    if not isinstance(critic, torch.nn.Module):
        return
    for module in critic.modules():
        if isinstance(module, BatchNorm) and (module.training and module.track_running_stats):
            raise ValueError(
                "critic: batch normalisation in training mode changes its running statistics, "
                "which torch.func and torch.compile cannot follow in a penalty. Use layer, "
                "instance or group normalisation, track_running_stats=False, or an eager penalty."
            )
        for name in old_norms(module):
            # torch.func alone follows the weight, but not the vectors of a power iteration.
            if torch.compiler.is_compiling() or (name == "spectral_norm" and module.training):
                raise ValueError(
                    f"critic: torch.nn.utils.{name} cannot be compiled in a penalty. Use "
                    f"torch.nn.utils.parametrizations.{name}, which can."
                )


def refuse_forward_mode(tensors: Sequence[Tensor]) -> None:
    """The inner gradient would drop the tangents; torch.func.jvp carries them through, or says
    where it cannot."""
    if any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors):
        raise NotImplementedError(
            "A gradient penalty has no forward-mode derivative of dual tensors. Use reverse mode."
        )
