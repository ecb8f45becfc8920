"""interpolate and gradient_penalty against plain PyTorch in float64."""

from __future__ import annotations

from types import SimpleNamespace

import by_keyword
import pytest
import reference
import torch
from layouts import DENSE_LAYOUTS, LAYOUTS, SHAPE
from oracle import (
    DTYPES,
    EPSILON,
    assert_bitwise_repeatable,
    assert_close,
    compute_epsilon,
    draw,
)
from torch import Tensor, nn

import ganloss_fast as gf
from ganloss_fast import ops

pytestmark = [pytest.mark.every_implementation, pytest.mark.order_of_threads]

PUBLIC = {
    "package": SimpleNamespace(
        gradient_penalty=by_keyword.gradient_penalty, interpolate=gf.interpolate
    ),
    "reference": reference,
}


@pytest.fixture(params=PUBLIC)
def public(request):
    return PUBLIC[request.param]


# ---- interpolate -------------------------------------------------------------------------------

ALPHAS = {
    "float": lambda dtype: 0.3,
    "int": lambda dtype: 1,
    "0-d": lambda dtype: torch.tensor(0.3, dtype=dtype),
    "[B]": lambda dtype: torch.rand(4, dtype=torch.float64).to(dtype),
    "[B, 1, 1, 1]": lambda dtype: torch.rand(4, 1, 1, 1, dtype=torch.float64).to(dtype),
    "full": lambda dtype: torch.rand(SHAPE, dtype=torch.float64).to(dtype),
}


def spread(alpha: float | Tensor) -> Tensor:
    """alpha in float64, so that it broadcasts against samples."""
    alpha = torch.as_tensor(alpha, dtype=torch.float64)
    return alpha.view(-1, 1, 1, 1) if alpha.dim() == 1 else alpha


def blend(real: Tensor, fake: Tensor, alpha: float | Tensor) -> Tensor:
    return spread(alpha) * real.double() + (1 - spread(alpha)) * fake.double()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("form", ALPHAS)
def test_interpolate_takes_every_form_of_alpha(implementation, form, dtype):
    real, fake, alpha = draw(*SHAPE, dtype=dtype), draw(*SHAPE, dtype=dtype), ALPHAS[form](dtype)
    x_hat = gf.interpolate(real, fake, alpha)
    assert x_hat.dtype == dtype
    assert x_hat.shape == real.shape
    assert_close(x_hat, blend(real, fake, alpha), 2 * EPSILON[dtype])


@pytest.mark.parametrize("form", ALPHAS)
def test_interpolate_and_its_reference_agree(public, form):
    real, fake, alpha = draw(*SHAPE).double(), draw(*SHAPE).double(), ALPHAS[form](torch.float64)
    assert_close(public.interpolate(real, fake, alpha), blend(real, fake, alpha), 1e-15)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_both_ends_are_exact(implementation, dtype):
    real, fake = draw(4, 5, dtype=dtype), 1000 * draw(4, 5, dtype=dtype)
    assert torch.equal(gf.interpolate(real, fake, 1), real)
    assert torch.equal(gf.interpolate(real, fake, 0), fake)
    per_sample = gf.interpolate(real, fake, torch.tensor([1.0, 0.0, 1.0, 0.0]))
    assert torch.equal(per_sample[::2], real[::2])
    assert torch.equal(per_sample[1::2], fake[1::2])


@pytest.mark.parametrize("layout_of_fake", LAYOUTS)
@pytest.mark.parametrize("layout_of_real", LAYOUTS)
@pytest.mark.parametrize("form", ["0-d", "[B]", "full"])
def test_interpolate_reads_every_layout(implementation, form, layout_of_real, layout_of_fake):
    real = LAYOUTS[layout_of_real](torch.float32)
    fake = LAYOUTS[layout_of_fake](torch.float32)
    alpha = ALPHAS[form](torch.float32)
    assert_close(gf.interpolate(real, fake, alpha), blend(real, fake, alpha), 3e-7)


@pytest.mark.parametrize("layout", DENSE_LAYOUTS)
@pytest.mark.parametrize("form", ["0-d", "[B]", "full"])
def test_interpolate_keeps_the_layout_of_real(isa, form, layout):
    real = LAYOUTS[layout](torch.float32)
    assert gf.interpolate(real, draw(*SHAPE), ALPHAS[form](torch.float32)).stride() == real.stride()


@pytest.mark.parametrize("form", ["0-d", "[B]", "[B, 1, 1, 1]", "full"])
def test_interpolate_differentiates_in_all_three(implementation, form):
    real, fake = (draw(*SHAPE, dtype=torch.float64).requires_grad_() for _ in range(2))
    alpha = ALPHAS[form](torch.float64).requires_grad_()
    direction = LAYOUTS["transposed"](torch.float64)  # gradients may have any strides

    def gradients(x_hat):
        return torch.autograd.grad((x_hat.square() * direction).sum(), (real, fake, alpha))

    actual = gradients(gf.interpolate(real, fake, alpha))
    for gradient, expected in zip(actual, gradients(blend(real, fake, alpha))):
        assert_close(gradient, expected, 1e-14)


@pytest.mark.parametrize("form", ["0-d", "[B]", "full"])
def test_interpolate_passes_gradcheck_and_gradgradcheck(implementation, form):
    real, fake = (draw(2, 3, dtype=torch.float64).requires_grad_() for _ in range(2))
    shapes = {"0-d": (), "[B]": (2,), "full": (2, 3)}
    alpha = torch.rand(shapes[form], dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(gf.interpolate, (real, fake, alpha))
    assert torch.autograd.gradgradcheck(gf.interpolate, (real, fake, alpha))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients_of_interpolate_have_the_dtype_of_their_input(implementation, dtype):
    real, fake = (draw(4, 3, dtype=dtype).requires_grad_() for _ in range(2))
    alpha = torch.rand(4).requires_grad_()
    gradients = torch.autograd.grad(gf.interpolate(real, fake, alpha).sum(), (real, fake, alpha))
    assert [g.dtype for g in gradients] == [dtype, dtype, torch.float32]
    assert_close(gradients[2], (real.double() - fake.double()).sum(1), 1e-6)


def test_alpha_is_drawn_for_each_sample_from_the_generator_given():
    real, fake = torch.ones(64, 3, 2), torch.zeros(64, 3, 2)
    drawn = gf.interpolate(real, fake, rng=torch.Generator().manual_seed(3))
    alpha = drawn[:, 0, 0]
    assert torch.equal(drawn, alpha[:, None, None].expand_as(drawn))
    assert alpha.unique().numel() == 64
    assert alpha.min() >= 0
    assert alpha.max() < 1
    again = gf.interpolate(real, fake, rng=torch.Generator().manual_seed(3))
    assert torch.equal(drawn, again)
    reference_draw = reference.interpolate(real, fake, rng=torch.Generator().manual_seed(3))
    assert torch.equal(drawn, reference_draw)


def test_alpha_is_drawn_from_the_global_generator_by_default():
    real, fake = torch.ones(8, 2), torch.zeros(8, 2)
    torch.manual_seed(5)
    first = gf.interpolate(real, fake)
    torch.manual_seed(5)
    assert torch.equal(first, gf.interpolate(real, fake))
    assert not torch.equal(first, gf.interpolate(real, fake))


NOTHING = pytest.mark.launches_nothing(reason="there are no elements")


@pytest.mark.parametrize("batch", [pytest.param(0, marks=NOTHING), 1])
def test_interpolate_of_an_empty_batch_and_of_one(implementation, batch):
    real, fake = draw(batch, 3), draw(batch, 3)
    x_hat = gf.interpolate(real, fake, torch.full((batch,), 0.25))
    torch.testing.assert_close(x_hat, 0.25 * real + 0.75 * fake)


# ---- the op norm_penalty --------------------------------------------------------------

MODES = ("two_sided", "one_sided")


def plain_penalty(gradient: Tensor, mode: str, target: float, scale: float) -> Tensor:
    """As one writes it by hand; NaN gradients where a norm is 0."""
    norms = gradient.flatten(1).norm(2, dim=1) if gradient.dim() > 1 else gradient.abs()
    excess = norms - target
    return scale * (torch.relu(excess) if mode == "one_sided" else excess).square().mean()


def norm_near_one(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Samples with norms on both sides of 1."""
    samples = draw(*shape, dtype=torch.float64)
    lengths = torch.linspace(0.4, 2.3, shape[0], dtype=torch.float64)
    norms = samples.flatten(1).norm(dim=1) if len(shape) > 1 else samples.abs()
    return (samples * (lengths / norms).view(-1, *[1] * (len(shape) - 1))).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_penalty_norms_and_gradient_are_those_of_the_formula(implementation, mode, dtype):
    g = norm_near_one(6, 3, 7, 5, dtype=dtype).requires_grad_()
    exact = g.detach().double().requires_grad_()
    penalty, norms = ops.norm_penalty(g, mode, 1.0, 10.0)
    truth = plain_penalty(exact, mode, 1.0, 10.0)
    assert_close(penalty, truth, 16 * compute_epsilon(dtype))
    assert_close(norms, exact.flatten(1).norm(dim=1), 4 * compute_epsilon(dtype))
    assert not norms.requires_grad
    assert penalty.dtype == norms.dtype
    (gradient,) = torch.autograd.grad(penalty, g)
    (expected,) = torch.autograd.grad(truth, exact)
    assert gradient.dtype == dtype
    assert_close(gradient, expected, 16 * EPSILON[dtype])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(5,), (4, 3), (3, 2, 2, 2)], ids=str)
def test_penalty_passes_gradcheck_and_gradgradcheck(implementation, mode, shape):
    g = norm_near_one(*shape).requires_grad_()

    def penalty(gradient):
        return ops.norm_penalty(gradient, mode, 1.05, 0.7)[0]

    assert torch.autograd.gradcheck(penalty, g)
    assert torch.autograd.gradgradcheck(penalty, g)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mode", MODES)
def test_penalty_reads_every_layout_to_second_order(implementation, mode, layout):
    g = (LAYOUTS[layout](torch.float64) / 20).detach().requires_grad_()
    direction = LAYOUTS["sliced"](torch.float64)

    def orders(penalty):
        (first,) = torch.autograd.grad(penalty, g, create_graph=True)
        return penalty, first, *torch.autograd.grad(first, g, direction)

    actual = orders(ops.norm_penalty(g, mode, 1.0, 10.0)[0])
    for result, truth in zip(actual, orders(plain_penalty(g, mode, 1.0, 10.0))):
        assert_close(result, truth, 1e-12)


@pytest.mark.parametrize("length", [1, 3, 17, 4095, 4097, 16384, 16385, 200_003])
def test_norms_of_long_samples_do_not_lose_digits(isa, length):
    g = draw(3, length)
    _, norms = ops.norm_penalty(g, "two_sided", 1.0, 1.0)
    assert_close(norms, g.double().norm(dim=1), 4 * EPSILON[torch.float32])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_zero_gradient_adds_its_penalty_and_no_gradient_of_any_order(implementation, dtype, mode):
    """Plain sqrt would make the whole step NaN."""
    g = norm_near_one(4, 6, dtype=dtype)
    g[1] = 0
    g.requires_grad_()
    penalty, norms = ops.norm_penalty(g, mode, 1.0, 4.0)
    (first,) = torch.autograd.grad(penalty, g, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), g)
    assert norms[1] == 0
    assert not first[1].any()
    assert not second[1].any()
    assert first.isfinite().all()
    assert second.isfinite().all()
    assert first[0].any() == (mode != MODES[1])
    kept = [plain_penalty(g[k : k + 1].double(), mode, 1.0, 1.0) for k in (0, 2, 3)]
    assert_close(
        penalty, sum(kept) + (1.0 if mode == "two_sided" else 0.0), 16 * compute_epsilon(dtype)
    )


def test_a_tiny_norm_leaves_the_second_order_right(implementation):
    """n^3 is 0 in float32 at 1e-15; the quotient that the formula asks for is not."""
    g = torch.full((2, 4), 5e-16).requires_grad_()
    exact = g.detach().double().requires_grad_()
    direction = draw(2, 4)

    def second_order(g, penalty):
        (first,) = torch.autograd.grad(penalty, g, create_graph=True)
        return torch.autograd.grad(first, g, direction.to(g))[0]

    actual = second_order(g, ops.norm_penalty(g, "two_sided", 1.0, 10.0)[0])
    truth = second_order(exact, plain_penalty(exact, "two_sided", 1.0, 10.0))
    assert_close(actual, truth, 16 * EPSILON[torch.float32])


def test_penalty_of_an_empty_batch_is_nan(implementation):
    g = torch.zeros(0, 3).requires_grad_()
    penalty, norms = ops.norm_penalty(g, "two_sided", 1.0, 1.0)
    assert penalty.isnan()
    assert norms.shape == (0,)
    assert torch.autograd.grad(penalty, g)[0].shape == (0, 3)


def test_penalty_is_bitwise_the_same_for_every_run_and_thread_count(isa):
    g = draw(5, 150_001).requires_grad_()

    def compute():
        penalty, norms = ops.norm_penalty(g, "two_sided", 1.0, 10.0)
        (first,) = torch.autograd.grad(penalty, g, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), g)
        x_hat = gf.interpolate(g, -g, torch.linspace(0, 1, 5))
        return [penalty, norms, first, second, x_hat]

    assert_bitwise_repeatable(compute)


def test_the_penalty_refuses_a_third_derivative(native):
    g = norm_near_one(2, 3).requires_grad_()
    penalty, _ = ops.norm_penalty(g, "two_sided", 1.0, 1.0)
    (first,) = torch.autograd.grad(penalty, g, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), g, create_graph=True)
    with pytest.raises(RuntimeError, match="not implemented"):
        torch.autograd.grad(second.sum(), g)


@pytest.mark.launches_nothing(reason="refused before any kernel")
@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # inside forward_ad
@pytest.mark.parametrize("op", ["interpolate", "norm_penalty"])
def test_forward_mode_and_vmap_are_refused(native, op):
    compute = {
        "interpolate": lambda x: ops.interpolate(x, x, torch.tensor(0.5)),
        "norm_penalty": lambda x: ops.norm_penalty(x, "two_sided", 1.0, 1.0)[0],
    }[op]
    with pytest.raises(NotImplementedError, match="forward-mode"):
        torch.func.jvp(compute, (draw(3, 2),), (draw(3, 2),))
    with pytest.raises(NotImplementedError, match="vmap"):
        torch.vmap(compute)(draw(2, 3, 2))


# ---- gradient_penalty --------------------------------------------------------------------------


class Critic(nn.Module):
    """A small convolutional critic with a condition and a switch."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(2, 4, 3)
        self.linear = nn.Linear(4 * 4 * 4, 1)
        self.double()

    def forward(self, x: Tensor, shift: Tensor | float = 0.0, *, gain: float = 1.0) -> Tensor:
        hidden = torch.nn.functional.leaky_relu(self.convolution(x) + shift, 0.2)
        return gain * self.linear(hidden.tanh().flatten(1))


def samples(batch: int = 5, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return draw(batch, 2, 6, 6, dtype=dtype), draw(batch, 2, 6, 6, dtype=dtype)


def plain_gradient_penalty(
    critic, real, fake, alpha, weight=10.0, target=1.0, one_sided=False
) -> Tensor:
    """Gulrajani et al., 2017, as their code has it."""
    x_hat = alpha * real + (1 - alpha) * fake
    if not x_hat.requires_grad:
        x_hat.requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x_hat).sum(), x_hat, create_graph=True)
    return plain_penalty(gradient, "one_sided" if one_sided else "two_sided", target, weight)


def assert_same_for(parameters, actual: Tensor, truth: Tensor, tolerance: float = 1e-11) -> None:
    assert_close(actual, truth, tolerance)
    parameters = list(parameters)
    gradients = (
        torch.autograd.grad(x, parameters, materialize_grads=True) for x in (actual, truth)
    )
    for gradient, expected in zip(*gradients):
        assert_close(gradient, expected, tolerance)


PENALTY_OPTIONS = [
    {},
    {"weight": 3},
    {"target": 0.0},
    {"target": 0.05, "one_sided": True},
    {"one_sided": True},
    {"target": -1.0},
]


@pytest.mark.parametrize("options", PENALTY_OPTIONS, ids=str)
@pytest.mark.parametrize("batch", [1, 5])
def test_gradient_penalty_is_that_of_the_paper(public, batch, options):
    critic = Critic()
    real, fake = samples(batch)
    alpha = torch.rand(batch, 1, 1, 1, dtype=torch.float64)
    actual = public.gradient_penalty(critic, real, fake, alpha=alpha, **options)
    truth = plain_gradient_penalty(critic, real, fake, alpha, **options)
    assert_same_for(critic.parameters(), actual, truth)


def test_gradient_penalty_draws_alpha_as_interpolate_does(public):
    critic, (real, fake) = Critic(), samples()
    actual = public.gradient_penalty(critic, real, fake, rng=torch.Generator().manual_seed(1))
    alpha = torch.rand(5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    truth = plain_gradient_penalty(critic, real, fake, alpha.view(-1, 1, 1, 1))
    assert_same_for(critic.parameters(), actual, truth)


def test_the_critic_gets_its_further_arguments(public):
    critic, (real, fake) = Critic(), samples()
    shift = draw(5, 4, 1, 1, dtype=torch.float64)
    actual = public.gradient_penalty(
        lambda x, shift: critic(x, shift, gain=2.5), real, fake, critic_args=(shift,), alpha=0.5
    )
    truth = plain_gradient_penalty(lambda x: critic(x, shift, gain=2.5), real, fake, 0.5)
    assert_same_for(critic.parameters(), actual, truth)


def test_the_weight_may_be_a_0d_tensor_that_learns(public):
    critic, (real, fake) = Critic(), samples()
    weight = torch.tensor(7.0, dtype=torch.float64, requires_grad=True)
    actual = public.gradient_penalty(critic, real, fake, weight=weight, alpha=0.5)
    truth = weight * plain_gradient_penalty(critic, real, fake, 0.5, weight=1.0)
    assert_same_for([*critic.parameters(), weight], actual, truth)


def test_a_fake_that_is_not_detached_gets_the_gradient_of_the_penalty(public):
    critic, (real, fake) = Critic(), samples()
    fake.requires_grad_()
    actual = public.gradient_penalty(critic, real, fake, alpha=0.3)
    truth = plain_gradient_penalty(critic, real, fake, 0.3)
    assert_same_for([*critic.parameters(), fake], actual, truth)


def test_a_critic_of_patches_is_differentiated_as_the_sum_of_its_logits(public):
    critic, (real, fake) = nn.Conv2d(2, 1, 3).double(), samples()

    def squashed(x):
        return critic(x).sin()

    actual = public.gradient_penalty(squashed, real, fake, alpha=0.5)
    truth = plain_gradient_penalty(squashed, real, fake, 0.5)
    assert_same_for(critic.parameters(), actual, truth)


def test_a_critic_with_spectral_norm_in_evaluation(public):
    critic = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 4).double())
    critic = nn.Sequential(critic, nn.Tanh(), nn.Linear(4, 1).double()).eval()
    real, fake = draw(6, 3, dtype=torch.float64), draw(6, 3, dtype=torch.float64)
    actual = public.gradient_penalty(critic, real, fake, alpha=0.5)
    truth = plain_gradient_penalty(critic, real, fake, 0.5)
    assert_same_for(critic.parameters(), actual, truth)


def test_a_critic_with_spectral_norm_in_training_iterates_once(public):
    """So its buffers end where those of a plain penalty end."""

    def trained(penalty):
        torch.manual_seed(0)
        critic = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 4).double())
        real, fake = draw(6, 3, dtype=torch.float64), draw(6, 3, dtype=torch.float64)
        loss = penalty(lambda x: critic(x).tanh(), real, fake, alpha=0.5)
        gradient = torch.autograd.grad(loss, critic.parametrizations.weight.original)[0]
        return [loss, gradient, *critic.buffers()]

    for result, truth in zip(trained(public.gradient_penalty), trained(plain_gradient_penalty)):
        assert_close(result, truth, 1e-11)


def test_a_critic_that_is_flat_somewhere_gives_no_nan(implementation):
    """All units dead: the gradient is 0, the penalty target^2."""
    critic = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    nn.init.constant_(critic[0].bias, -100.0)
    penalty = gf.gradient_penalty(critic, torch.rand(5, 3), torch.rand(5, 3))
    penalty.backward()
    assert penalty == 10
    for parameter in critic.parameters():
        assert parameter.grad is None or not parameter.grad.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_gradients_are_summed_in_float32(implementation, dtype):
    """Each square is 1e-8, below the smallest half; their sum is not."""
    scale = torch.tensor(1e-4, dtype=dtype)
    x = torch.zeros(2, 4096, dtype=dtype)
    penalty = gf.gradient_penalty(
        lambda z: (z * scale).sum(1), x, x, penalty=gf.WGANGP(target=0.0), weight=1.0
    )
    assert penalty.dtype == torch.float32
    assert_close(penalty, 4096 * scale.double().square(), 4e-6)


def test_it_works_under_no_grad_as_a_number_to_log(public):
    critic, (real, fake) = Critic(), samples()
    with torch.no_grad():
        logged = public.gradient_penalty(critic, real, fake, alpha=0.5)
    assert_close(logged, plain_gradient_penalty(critic, real, fake, 0.5), 1e-11)


def test_the_inputs_are_left_as_they_are(public):
    critic, (real, fake) = Critic(), samples()
    before = real.clone(), fake.clone()
    public.gradient_penalty(critic, real, fake).backward()
    assert torch.equal(real, before[0])
    assert torch.equal(fake, before[1])
    assert not real.requires_grad
    assert not fake.requires_grad
    assert real.grad is None
