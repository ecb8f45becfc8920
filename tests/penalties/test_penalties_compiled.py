"""Penalties under torch.compile: right where they compile, refused where Dynamo cannot."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from critics import SpectralResNet, dcgan, patchgan
from torch import nn
from torch.torch_version import TorchVersion

import ganloss_fast as gf

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.usefixtures("fresh_compiler"),
]


def small_dcgan() -> nn.Module:
    torch.manual_seed(3)
    return dcgan(4, 16)


def gradients(module: nn.Module) -> list[torch.Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in module.parameters()]


def assert_alike(compiled: nn.Module, eager: nn.Module, tolerance=1e-5) -> None:
    for a, b in zip(gradients(compiled), gradients(eager), strict=True):
        assert torch.allclose(a, b, rtol=tolerance, atol=tolerance * 1e-2)
    for a, b in zip(compiled.buffers(), eager.buffers(), strict=True):
        assert torch.allclose(a, b, rtol=1e-6)


PENALTIES = {
    "gradient_penalty": lambda critic, real, fake, alpha: gf.gradient_penalty(
        critic, real, fake, alpha=alpha
    ),
    "r1": lambda critic, real, fake, alpha: gf.r1_penalty(critic, real),
    "per pixel": lambda critic, real, fake, alpha: gf.gradient_penalty(
        critic, real, fake, penalty=gf.WGANGP(norm="channel", eps=1e-6), alpha=alpha
    ),
}


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize(
    "make", [small_dcgan, lambda: SpectralResNet(4, 8)], ids=["dcgan", "spectral norm, training"]
)
def test_a_compiled_penalty_equals_the_eager_one(make, penalty):
    """With the functional form inside and an ordinary backward outside."""
    critic = make()
    eager = copy.deepcopy(critic)
    size = 16 if make is small_dcgan else 8
    real, fake = torch.randn(2, 3, 3, size, size).unbind()
    alpha = torch.rand(3)
    compute = PENALTIES[penalty]
    step = torch.compile(
        lambda r, f, a: compute(critic, r, f, a), fullgraph=True, backend="aot_eager"
    )
    compiled = step(real, fake, alpha)
    compiled.backward()
    expected = compute(eager, real, fake, alpha)
    expected.backward()
    assert torch.allclose(compiled, expected, rtol=1e-5)
    assert_alike(critic, eager)


def test_a_compiled_approximate_r1_equals_the_eager_one():
    critic = small_dcgan()
    eager = copy.deepcopy(critic)
    x, seed = torch.randn(3, 3, 16, 16), torch.tensor(5)
    step = torch.compile(
        lambda x, s: gf.approximate_r1_penalty(critic, x, 0.1, seed=s),
        fullgraph=True,
        backend="aot_eager",
    )
    step(x, seed).backward()
    gf.approximate_r1_penalty(eager, x, 0.1, seed=seed).backward()
    assert_alike(critic, eager)


def test_two_critics_under_the_same_code_do_not_mix_their_results():
    """Dynamo lacks a guard on what a functorch closure captures; ours must not fall into that."""
    critics = [small_dcgan(), SpectralResNet(4, 16).eval()]
    x = torch.randn(2, 3, 16, 16)

    def make(critic):
        return torch.compile(lambda z: gf.r1_penalty(critic, z), backend="aot_eager")

    steps = [make(critic) for critic in critics]
    for _ in range(2):
        for step, critic in zip(steps, critics, strict=True):
            assert torch.allclose(step(x), gf.r1_penalty(critic, x), rtol=1e-4)


def test_compile_options_hold_the_pass_and_pass_others_on():
    options = gf.compile_options(max_autotune=False)
    assert set(options) == {"post_grad_custom_pre_pass", "max_autotune"}
    assert options["post_grad_custom_pre_pass"].uuid()


@pytest.mark.parametrize("zero_grads", ["stock", "all"])
def test_zero_grads_all_gives_every_parameter_a_gradient(zero_grads):
    """As DistributedDataParallel needs it; the last bias has none otherwise."""
    critic, x = small_dcgan(), torch.randn(2, 3, 16, 16)
    eager = copy.deepcopy(critic)
    step = torch.compile(
        lambda z: gf.r1_penalty(critic, z, how=gf.Differentiation(zero_grads=zero_grads)),
        fullgraph=True,
        backend="aot_eager",
    )
    step(x).backward()
    gf.r1_penalty(eager, x, how=gf.Differentiation(zero_grads=zero_grads)).backward()
    assert_alike(critic, eager)
    assert (critic[-1].bias.grad is not None) == (zero_grads == "all")


def test_zero_grads_all_is_refused_for_a_function_while_compiling():
    critic = nn.Conv2d(3, 1, 3)
    message = compiled_refusal(
        lambda x: gf.r1_penalty(lambda z: critic(z), x, how=gf.Differentiation(zero_grads="all")), X
    )
    assert "needs a critic that is a module" in message


# ---- what Dynamo cannot do ----------------------------------------------------------------------


@pytest.mark.parametrize("function", [gf.r1_penalty, lambda c, x: gf.gradient_penalty(c, x, x)])
def test_a_compiled_critic_under_an_eager_penalty_says_what_to_do(function):
    critic = torch.compile(small_dcgan(), backend="aot_eager")
    with pytest.raises(RuntimeError, match="Compile the function that computes the penalty"):
        function(critic, torch.randn(2, 3, 16, 16))


@pytest.mark.filterwarnings("ignore:Using `torch.compile.module.` when there are global hooks")
def test_a_function_that_was_compiled_inside_the_critic_says_what_to_do():
    inner = torch.compile(small_dcgan(), backend="aot_eager")
    with pytest.raises(RuntimeError, match="Compile the function that computes the penalty"):
        gf.r1_penalty(lambda x: inner(x) * 2, torch.randn(2, 3, 16, 16))


COMPILED_CRITIC = {
    "r1": gf.r1_penalty,
    "no cut": lambda c, x: gf.r1_penalty(c, x, how=gf.Differentiation(graph_cut="off")),
    "chunks": lambda c, x: gf.r1_penalty(c, x, how=gf.Differentiation(chunk_size=1)),
    "logits": lambda c, x: gf.penalty_from_logits(c(x.requires_grad_()), x),
}


@pytest.mark.parametrize("name", COMPILED_CRITIC)
def test_a_critic_that_was_compiled_for_a_generator_step_says_what_to_do(name):
    """After an ordinary backward, torch refuses the inner gradient in words of its own."""
    critic = torch.compile(small_dcgan(), backend="aot_eager")
    critic(torch.randn(2, 3, 16, 16, requires_grad=True)).mean().backward()
    with pytest.raises(RuntimeError, match="Compile the function that computes the penalty"):
        COMPILED_CRITIC[name](critic, torch.randn(2, 3, 16, 16))


X = torch.randn(2, 3, 8, 8)
SCALER, GENERATOR = torch.amp.GradScaler("cpu"), torch.Generator()
with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    HOOKED = torch.nn.utils.weight_norm(nn.Conv2d(3, 1, 3))


def compiled_refusal(function, *arguments) -> str:
    with pytest.raises(Exception) as caught:  # noqa: PT011 (Dynamo wraps it)
        torch.compile(function, fullgraph=True, backend="aot_eager")(*arguments)
    message, error = "", caught.value
    while error is not None:
        message += str(error)
        error = error.__cause__ or error.__context__
    return message


def test_batch_norm_in_training_is_refused_while_compiling():
    critic = patchgan(4, nn.BatchNorm2d)
    message = compiled_refusal(lambda x: gf.r1_penalty(critic, x), torch.randn(2, 3, 32, 32))
    assert "batch normalisation in training mode changes its running statistics" in message


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["spectral_norm", "weight_norm"])
def test_norms_in_hooks_are_refused_while_compiling(name, training):
    critic = nn.Sequential(getattr(torch.nn.utils, name)(nn.Conv2d(3, 1, 3))).train(training)
    message = compiled_refusal(lambda x: gf.r1_penalty(critic, x), torch.randn(2, 3, 8, 8))
    assert f"parametrizations.{name}" in message


def test_a_critic_whose_output_is_detached_is_refused_while_compiling():
    critic = nn.Conv2d(3, 1, 3)
    for detached in (lambda z: critic(z).detach(), lambda z: torch.ones(2)):
        message = compiled_refusal(lambda x: gf.r1_penalty(detached, x), X)  # noqa: B023
        assert "its output does not depend on its input" in message
        with pytest.raises(ValueError, match="its output does not depend on its input"):
            torch.func.grad(lambda x: gf.r1_penalty(detached, x))(X)  # noqa: B023


def test_a_critic_with_one_detached_output_compiles():
    conv = nn.Conv2d(3, 1, 3)

    def critic(z):
        return [conv(z), conv(z).detach()]

    step = torch.compile(lambda x: gf.r1_penalty(critic, x), fullgraph=True, backend="aot_eager")
    assert torch.allclose(step(X), gf.r1_penalty(conv, X))


UNTRACEABLE = {
    "GradScaler": (
        lambda c, x: gf.r1_penalty(c, x, inv_scale=SCALER),
        "a GradScaler cannot be traced",
    ),
    "generator": (
        lambda c, x: gf.gradient_penalty(c, x, -x, rng=GENERATOR),
        "Draw outside of the compiled function",
    ),
    "in-place critic": (
        lambda c, x: gf.r1_penalty(lambda z: c(z.mul_(2)), x),
        "it changes its input in place",
    ),
    "in-place activation": (
        lambda c, x: gf.r1_penalty(lambda z: c(nn.functional.relu_(z)), x),
        "it changes its input in place",
    ),
    "tuple": (lambda c, x: gf.r1_penalty(lambda z: (c(z), z), x), "If all of it is logits"),
    # Not our words, but no wrong result either.
    "weight norm that hides in a function": (
        lambda c, x: gf.r1_penalty(lambda z: HOOKED(z), x),
        "Cannot access storage of TensorWrapper",
    ),
}


@pytest.mark.parametrize("name", UNTRACEABLE)
def test_what_cannot_be_traced_is_refused_while_compiling(name):
    function, words = UNTRACEABLE[name]
    critic = nn.Conv2d(3, 1, 3)
    said = compiled_refusal(lambda x: function(critic, x), X)
    # Before 2.13, Dynamo says of a change in place itself that autograd does not allow it.
    itself = TorchVersion(torch.__version__) < (2, 13) and "leaf Variable" in said
    assert words in said or itself


def test_the_loss_scale_compiles_as_a_tensor():
    """What the refusal of a GradScaler says to do."""
    critic = nn.Conv2d(3, 1, 3)
    step = torch.compile(
        lambda x, scale: gf.r1_penalty(critic, x, inv_scale=scale),
        fullgraph=True,
        backend="aot_eager",
    )
    assert torch.allclose(step(X, torch.tensor(2.0**-8)), gf.r1_penalty(critic, X))


def test_chunks_are_refused_while_compiling():
    critic = small_dcgan()
    message = compiled_refusal(
        lambda x: gf.r1_penalty(critic, x, how=gf.Differentiation(chunk_size=1)),
        torch.randn(2, 3, 16, 16),
    )
    assert "compile the step without it" in message


def test_penalty_from_logits_is_refused_while_compiling():
    critic = small_dcgan()
    x = torch.randn(2, 3, 16, 16, requires_grad=True)
    message = compiled_refusal(lambda z: gf.penalty_from_logits(critic(z), z), x)
    assert "need the critic itself" in message


def test_cutting_an_own_gradient_is_refused_while_compiling():
    gradient = torch.randn(2, 3, requires_grad=True) * 2
    message = compiled_refusal(gf.cut_second_order, gradient)
    assert "Call it outside of the compiled function" in message


def test_path_length_is_refused_while_compiling():
    latents = torch.randn(2, 4, requires_grad=True)
    weight = torch.randn(4, 12)

    def step(w):
        return gf.path_length_penalty((w @ weight).view(2, 3, 2, 2), w, torch.zeros(())).penalty

    assert "need the critic itself" in compiled_refusal(step, latents)
