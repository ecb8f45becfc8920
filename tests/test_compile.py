"""torch.compile and torch.func give what eager gives, without a graph break."""

from __future__ import annotations

import pytest
import torch
from oracle import TRUTHS, assert_close, draw, draw_segment, inputs_of
from torch import nn

import ganloss_fast as gf
from ganloss_fast import ops
from ganloss_fast.ops import terms
from ganloss_fast.ops.terms import Segment

pytestmark = [
    pytest.mark.usefixtures("fresh_compiler"),
    # torch's own: while the compiler is imported, and from the code it generates
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def assert_compiles(
    function, inputs, backend: str = "aot_eager", tolerance: float = 1e-6, **options
):
    """The same value and gradients as in eager, in one graph."""
    compiled = torch.compile(function, fullgraph=True, backend=backend, **options)
    learned = [t for t in inputs if t.requires_grad]
    expected, actual = function(*inputs), compiled(*inputs)
    assert_close(actual, expected, tolerance)
    gradients = (torch.autograd.grad(loss, learned) for loss in (actual, expected))
    for gradient, truth in zip(*gradients):
        assert_close(gradient, truth, tolerance)


def logits(*shape: int) -> torch.Tensor:
    return draw(*(shape or (4, 7))).requires_grad_()


# ---- losses ------------------------------------------------------------------------------------

LOSSES = {
    "bce": gf.BCE(real_label=0.9),
    "hinge": "hinge",
    "least squares": "least_squares",
    "wasserstein": gf.Wasserstein(drift=0.01),
    "paired": gf.BCE(relativistic="paired"),
    "average": gf.Hinge(relativistic="average"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_discriminator_loss_compiles_in_one_graph(name):
    def step(real, fake):
        return gf.discriminator_loss(real, fake, LOSSES[name])

    assert_compiles(step, (logits(), logits()))


@pytest.mark.parametrize("name", LOSSES)
def test_generator_loss_compiles_in_one_graph(name):
    relativistic = name in ("paired", "average")

    def step(real, fake):
        return gf.generator_loss(fake, LOSSES[name], real=real if relativistic else None)

    real = logits() if relativistic else logits().detach()
    assert_compiles(step, (real, logits()))


def test_inductor_gives_what_eager_gives():
    """The loss among ops that inductor generates code for, on both sides."""
    layer = nn.Linear(7, 3)

    def step(real, fake):
        real, fake = layer(real).sin(), layer(fake).sin()
        loss = gf.discriminator_loss([real, real * 2], [fake, fake * 2], "bce")
        return 3 * loss + gf.feature_matching_loss([real], [fake], detach_real=False)

    assert_compiles(step, (logits(), logits()), backend="inductor", tolerance=1e-5)


def test_lists_weights_and_details_compile_in_one_graph():
    weight = torch.tensor(0.7)

    def step(real, fake):
        details = gf.discriminator_loss_details(
            [real, real[:2]], [fake, fake[:2]], "hinge", real_weight=weight, fake_weight=2.0
        )
        return details.total + details.real.sum() + details.stats.real.mean.sum()

    assert_compiles(step, (logits(), logits()))


def test_label_maps_compile_in_one_graph():
    label = torch.rand(4, 7)

    def step(real, fake):
        return gf.discriminator_loss(real, fake, gf.BCE(real_label=label, fake_label=1 - label))

    assert_compiles(step, (logits(), logits()))


def test_feature_matching_compiles_in_one_graph():
    def step(real, fake):
        maps = [[real, real * 2], [real.t()]], [[fake, fake * 2], [fake.t()]]
        return gf.feature_matching_loss(*maps, include_last=True, weight=2.0)

    assert_compiles(step, (logits().detach(), logits()))


def test_one_graph_serves_every_batch_size():
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph

    def step(real, fake):
        return gf.discriminator_loss(real, fake, "bce")

    compiled = torch.compile(step, fullgraph=True, dynamic=True, backend=counting)
    for batch in (4, 6, 11):
        real, fake = logits(batch, 7), logits(batch, 7)
        assert_close(compiled(real, fake), step(real, fake), 1e-6)
    assert len(graphs) == 1


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_dynamic_shapes_give_the_gradients_of_eager(backend):
    def step(real, fake):
        return gf.discriminator_loss(real, fake, "bce")

    for batch in (4, 9):
        inputs = (logits(batch, 3), logits(batch, 3))
        assert_compiles(step, inputs, backend=backend, dynamic=True)


def test_channels_last_and_half_compile():
    def step(real, fake):
        return gf.discriminator_loss(real, fake, "least_squares")

    images = [draw(2, 3, 4, 4, dtype=torch.bfloat16) for _ in range(2)]
    inputs = [i.to(memory_format=torch.channels_last).requires_grad_() for i in images]
    assert_compiles(step, inputs)


def test_a_change_of_backend_is_seen_by_compiled_code():
    compiled = torch.compile(
        lambda r, f: gf.discriminator_loss(r, f, "bce"), fullgraph=True, backend="aot_eager"
    )
    real, fake = logits(), logits()
    first = compiled(real, fake)
    with gf.use_backend("reference"):
        second = compiled(real, fake)
    assert_close(first, second, 1e-6)
    assert "ganloss" not in type(second.grad_fn).__name__.lower()


def test_interpolate_compiles_in_one_graph():
    def step(real, fake, alpha):
        return gf.interpolate(real, fake, alpha).square().sum()

    assert_compiles(step, (logits(), logits(), torch.rand(4).requires_grad_()))


# ---- torch.func --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRUTHS)
def test_func_grad_is_the_gradient(native, name):
    def loss(a, b):
        return ops.multi_tensor_loss([Segment(a, TRUTHS[name].term, 1.5, b)]).total

    a, b = logits(), logits()
    actual = torch.func.grad(loss, argnums=(0, 1))(a, b)
    for gradient, truth in zip(actual, torch.autograd.grad(loss(a, b), (a, b))):
        assert_close(gradient, truth, 1e-7)


@pytest.mark.parametrize("operands", ["a - b", "a - mean", "w, a - b"])
def test_func_grad_of_func_grad_is_the_second_order(native, operands):
    drawn = draw_segment(terms.softplus(1.0), operands, (5,), torch.float64)

    def loss(a, b):
        return ops.multi_tensor_loss([drawn._replace(a=a, b=b)]).total

    def first_order(a, b):
        return sum(g.square().sum() for g in torch.func.grad(loss, argnums=(0, 1))(a, b))

    actual = torch.func.grad(first_order, argnums=(0, 1))(drawn.a, drawn.b)
    first = torch.autograd.grad(loss(drawn.a, drawn.b), inputs_of([drawn]), create_graph=True)
    truth = torch.autograd.grad(sum(g.square().sum() for g in first), inputs_of([drawn]))
    for gradient, expected in zip(actual, truth):
        assert_close(gradient, expected, 1e-14)


def test_func_grad_differentiates_the_penalty_twice(native):
    def penalty(g):
        return ops.norm_penalty(g, "two_sided", 1.0, 1.0)[0]

    def first_order(g):
        return torch.func.grad(penalty)(g).square().sum()

    g = draw(4, 5, dtype=torch.float64).requires_grad_()
    (first,) = torch.autograd.grad(penalty(g), g, create_graph=True)
    (truth,) = torch.autograd.grad(first.square().sum(), g)
    assert_close(torch.func.grad(first_order)(g), truth, 1e-13)


def test_compiled_func_grad_of_func_grad(native):
    def loss(a):
        return ops.multi_tensor_loss([Segment(a, terms.softplus(1.0))]).total

    def second_order(a):
        return torch.func.grad(lambda z: torch.func.grad(loss)(z).square().sum())(a)

    a = draw(6)
    compiled = torch.compile(second_order, fullgraph=True, backend="aot_eager")
    assert_close(compiled(a), second_order(a), 1e-6)


# ---- penalties ---------------------------------------------------------------------------------


def functional_penalty(critic, x_hat):
    """The form that compiles: the inner gradient by torch.func, the backward outside."""
    gradient = torch.func.grad(lambda z: critic(z).sum())(x_hat)
    return ops.norm_penalty(gradient, "two_sided", 1.0, 10.0)[0]


def critic_and_samples():
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(6, 16), nn.LeakyReLU(0.2), nn.Linear(16, 8), nn.Tanh())
    return nn.Sequential(critic, nn.Linear(8, 1)), draw(5, 6), draw(5, 6)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_the_functional_penalty_compiles_and_trains_as_the_eager_one(native, backend):
    critic, real, fake = critic_and_samples()
    parameters = list(critic.parameters())
    compiled = torch.compile(
        lambda x: functional_penalty(critic, x), fullgraph=True, backend=backend
    )
    penalty = compiled(gf.interpolate(real, fake, 0.3))
    truth = gf.gradient_penalty(critic, real, fake, alpha=0.3)
    assert_close(penalty, truth, 1e-5)
    actual = torch.autograd.grad(penalty, parameters, materialize_grads=True)
    expected = torch.autograd.grad(truth, parameters, materialize_grads=True)
    for gradient, exact in zip(actual, expected):
        assert_close(gradient, exact, 1e-5)


def test_the_second_order_term_of_a_loss_survives_compilation(native):
    """A gradient penalty on the fused loss itself: the case that loses it elsewhere."""
    layer = nn.Linear(6, 3)

    def penalty(x):
        def loss(z):
            return gf.discriminator_loss(layer(z), layer(-z), "bce")

        return torch.func.grad(loss)(x).square().sum()

    x = draw(5, 6)
    compiled = torch.compile(penalty, fullgraph=True, backend="aot_eager")
    actual = torch.autograd.grad(compiled(x), layer.weight)[0]
    assert_close(actual, torch.autograd.grad(penalty(x), layer.weight)[0], 1e-5)

    def plain(z):
        softplus = nn.functional.softplus
        return softplus(-layer(z)).mean() + softplus(layer(-z)).mean()

    z = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(plain(z), z, create_graph=True)
    (truth,) = torch.autograd.grad(first.square().sum(), layer.weight)
    assert_close(actual, truth, 1e-5)
