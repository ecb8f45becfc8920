"""The graph cut: the same gradients to the bit, at fewer FLOPs."""

from __future__ import annotations

import copy
import gc
import warnings

import by_keyword
import pytest
import torch
import torch.nn.functional as F
from critics import CRITICS, SpectralResNet, dcgan
from torch import nn
from torch.utils.checkpoint import checkpoint

import ganloss_fast as gf
from ganloss_fast import backends
from ganloss_fast.diagnose import CountFlops
from ganloss_fast.graph_cut import hooks, second_order

ENGINES = ["native", "hooks"] if backends.HAS_NATIVE else ["hooks"]
CUTTABLE = [name for name, case in CRITICS.items() if case.cut < case.stock - 1]


@pytest.fixture(params=ENGINES)
def engine(request, monkeypatch):
    """Runs a test with edges removed in C++, and with hooks in Python."""
    if request.param == "hooks":
        monkeypatch.setattr(
            second_order,
            "cut",
            lambda grads, zero_grads="stock", parameters=(), hidden=(), fast_weights=False: (
                second_order.CutResult(
                    *hooks.cut_second_order(grads, zero_grads, parameters, hidden)
                )
            ),
        )
    return request.param


def gradients_by_name(module: nn.Module) -> dict[str, torch.Tensor | None]:
    return {name: parameter.grad for name, parameter in module.named_parameters()}


def assert_same_gradients(actual: nn.Module, expected: nn.Module) -> None:
    """Equal to the bit, and None where and only where the other is None."""
    wanted = gradients_by_name(expected)
    for name, gradient in gradients_by_name(actual).items():
        assert (gradient is None) == (wanted[name] is None), f"{name}: {gradient} {wanted[name]}"
        if gradient is not None:
            assert torch.equal(gradient, wanted[name]), name


def two_copies(make, dtype=torch.float32, training=True) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(7)
    critic = make().to(dtype).train(training)
    return critic, copy.deepcopy(critic)


def penalty_backward(critic, x, graph_cut, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*the statistics of the batch")
        penalty = by_keyword.gradient_penalty(critic, x, at="real", graph_cut=graph_cut, **options)
    penalty.backward()
    return penalty.detach()


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", CRITICS)
def test_gradients_equal_those_of_stock_autograd(engine, name, dtype, training):
    cut, stock = two_copies(CRITICS[name].make, dtype, training)
    x = torch.randn(CRITICS[name].shape, dtype=dtype)
    assert torch.equal(penalty_backward(cut, x, "auto"), penalty_backward(stock, x, "off"))
    assert_same_gradients(cut, stock)
    for a, b in zip(cut.buffers(), stock.buffers(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.filterwarnings("ignore:.*the statistics of the batch")
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", CRITICS)
def test_gradients_equal_those_of_stock_autograd_under_checkpointing(name, dtype, training):
    cut, stock = two_copies(CRITICS[name].make, dtype, training)
    x = torch.randn(CRITICS[name].shape, dtype=dtype)
    for critic, choice in ((cut, "auto"), (stock, "off")):
        checkpointed = lambda z, critic=critic: checkpoint(critic, z, use_reentrant=False)  # noqa: E731
        gf.r1_penalty(checkpointed, x, how=gf.Differentiation(graph_cut=choice)).backward()
    assert_same_gradients(cut, stock)


def hand_written_penalty(critic, x):
    """As WGAN-GP's codebases have it."""
    x = x.clone().requires_grad_()
    logits = critic(x)
    (gradient,) = torch.autograd.grad(logits, x, torch.ones_like(logits), create_graph=True)
    return 10 * (gradient.flatten(1).norm(dim=1) - 1).square().mean()


@pytest.mark.parametrize("graph_cut", ["auto", "fast"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 3e-6), (torch.float64, 1e-12)], ids=str
)
@pytest.mark.parametrize("name", CRITICS)
def test_gradients_are_those_of_the_hand_written_penalty(name, dtype, tolerance, graph_cut):
    ours, theirs = two_copies(CRITICS[name].make, dtype)
    x = torch.randn(CRITICS[name].shape, dtype=dtype)
    value = penalty_backward(ours, x, graph_cut)
    expected = hand_written_penalty(theirs, x)
    expected.backward()
    assert abs(value - expected) <= tolerance * expected
    # On the scale of all: a bias before a normalisation has a gradient of nothing but rounding.
    pairs = [(a.grad, b.grad) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True)]
    pairs = [(a, b) for a, b in pairs if b is not None]
    error = torch.stack([(a - b).norm() for a, b in pairs]).norm()
    assert error <= tolerance * torch.stack([b.norm() for _, b in pairs]).norm()


def penalty_flops(critic, x, graph_cut) -> float:
    """FLOPs of forward, inner gradient and backward over those of one forward."""
    with torch.no_grad(), CountFlops() as forward:
        critic(x)
    with CountFlops() as step:
        penalty_backward(critic, x, graph_cut)
    return step.total / forward.total


@pytest.mark.parametrize("name", CRITICS)
def test_flops_of_a_penalty_step(engine, name):
    case = CRITICS[name]
    critic, other = two_copies(case.make)
    x = torch.randn(case.shape)
    cut = case.cut_natively if engine == "native" and case.cut_natively else case.cut
    assert penalty_flops(critic, x, "off") == pytest.approx(case.stock, abs=0.001)
    assert penalty_flops(other, x, "auto") == pytest.approx(cut, abs=0.001)


def test_whole_wgan_step_takes_ten_forwards_instead_of_twelve():
    critic, other = two_copies(dcgan)
    real, fake = torch.randn(2, 4, 3, 32, 32).unbind()
    with torch.no_grad(), CountFlops() as forward:
        critic(real)
    ratios = []
    for module, choice in ((critic, "off"), (other, "auto")):
        with CountFlops() as step:
            loss = module(fake).mean() - module(real).mean()
            (
                loss
                + gf.gradient_penalty(module, real, fake, how=gf.Differentiation(graph_cut=choice))
            ).backward()
        ratios.append(step.total / forward.total)
    assert ratios[0] - ratios[1] == pytest.approx(2.0, abs=0.01)
    # Less than 10: the main forwards need no gradient of the first convolution's input.
    assert 9.5 < ratios[1] < 10.0


def test_twenty_adam_steps_on_the_penalty_alone_end_at_the_same_parameters(engine):
    """The zeros of the biases matter: Adam moves a parameter with a zero gradient."""
    cut, stock = two_copies(dcgan)
    for critic, choice in ((cut, "auto"), (stock, "off")):
        torch.manual_seed(1)
        optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3, weight_decay=0.01)
        for _ in range(20):
            optimizer.zero_grad()
            penalty_backward(critic, torch.randn(2, 3, 32, 32), choice)
            optimizer.step()
    for a, b in zip(cut.parameters(), stock.parameters(), strict=True):
        assert torch.equal(a, b)


def test_zero_grads_none_leaves_biases_without_a_gradient(engine):
    critic = dcgan()
    penalty_backward(critic, torch.randn(2, 3, 32, 32), "auto", zero_grads="none")
    assert critic[0].bias.grad is None
    assert critic[0].weight.grad is not None


def test_zero_grads_all_reaches_the_last_bias(engine):
    """Stock autograd leaves it None, which is what breaks DistributedDataParallel."""
    critic, stock = two_copies(dcgan)
    x = torch.randn(2, 3, 32, 32)
    penalty_backward(stock, x, "off")
    assert stock[-1].bias.grad is None
    penalty_backward(critic, x, "auto", zero_grads="all")
    for name, gradient in gradients_by_name(critic).items():
        wanted = gradients_by_name(stock)[name]
        assert torch.equal(
            gradient, torch.zeros(()).expand_as(gradient) if wanted is None else wanted
        )


# ---- the public function ------------------------------------------------------------------------


def own_penalty(critic, x, **cut_options):
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    if cut_options:
        gradient = gf.cut_second_order(gradient, **cut_options)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def test_one_added_line_makes_an_own_penalty_cheaper():
    cut, stock = two_copies(lambda: SpectralResNet(8, 16))
    x = torch.randn(2, 3, 16, 16, requires_grad=True)
    flops = []
    for critic, options in ((cut, {"zero_grads": "stock"}), (stock, {})):
        with CountFlops() as counter:
            own_penalty(critic, x, **options).backward()
        flops.append(counter.total)
    assert_same_gradients(cut, stock)
    assert flops[0] / flops[1] == pytest.approx(4 / 6, abs=0.01)


def test_a_gradient_cut_twice_and_used_in_two_penalties_keeps_its_zeros(engine):
    cut, stock = two_copies(dcgan)
    x = torch.randn(2, 3, 32, 32, requires_grad=True)
    for critic, wanted in ((cut, True), (stock, False)):
        (g,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
        first = second_order.cut([g]).grads[0] if wanted else g
        first.square().sum().backward(retain_graph=True)
        second = second_order.cut([g]).grads[0] if wanted else g
        critic.zero_grad()
        second.square().sum().backward()
    assert_same_gradients(cut, stock)


def test_main_loss_and_penalty_share_one_backward(engine):
    cut, stock = two_copies(dcgan)
    x = torch.randn(4, 3, 32, 32)
    for critic, choice in ((cut, "auto"), (stock, "off")):
        real = x.clone().requires_grad_()
        logits = critic(real)
        penalty = gf.penalty_from_logits(logits, real, how=gf.Differentiation(graph_cut=choice))
        (F.softplus(-logits).mean() + penalty).backward()
    assert_same_gradients(cut, stock)


def test_third_order_passes_through(engine):
    cut, stock = two_copies(dcgan, torch.float64)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    for critic, choice in ((cut, "auto"), (stock, "off")):
        point = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(critic(point).sum(), point, create_graph=True)
        g = second_order.cut([g]).grads[0] if choice == "auto" else g
        second = torch.autograd.grad(
            g.square().sum(), critic[0].weight, create_graph=True, allow_unused=True
        )[0]
        second.square().sum().backward()
    for name in ("0.weight", "2.weight"):
        a, b = gradients_by_name(cut)[name], gradients_by_name(stock)[name]
        assert torch.equal(a, b)


def test_generator_gets_the_zeros_that_stock_gives_it(engine):
    """fake was not detached: the penalty reaches the generator."""
    grads = []
    for choice in ("auto", "off"):
        torch.manual_seed(3)
        generator, critic = nn.Conv2d(3, 3, 1), dcgan()
        real = torch.randn(2, 3, 32, 32)
        fake = generator(torch.randn(2, 3, 32, 32))
        gf.gradient_penalty(
            critic, real, fake, alpha=0.5, how=gf.Differentiation(graph_cut=choice)
        ).backward()
        grads.append([p.grad for p in generator.parameters()])
    for a, b in zip(*grads, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("asked", ["bias", "input", "fake", "alpha"])
def test_asking_for_a_gradient_that_is_zero_gives_zeros(engine, asked):
    critic = dcgan()
    real, fake = torch.randn(2, 2, 3, 32, 32).unbind()
    fake.requires_grad_()
    alpha = torch.rand(2, requires_grad=True)
    point = real.clone().requires_grad_()
    if asked == "input":
        penalty = gf.r1_penalty(critic, point)
    else:
        penalty = gf.gradient_penalty(critic, real, fake, alpha=alpha)
    tensor = {"bias": critic[0].bias, "input": point, "fake": fake, "alpha": alpha}[asked]
    (gradient,) = torch.autograd.grad(penalty, tensor)
    assert torch.equal(gradient, torch.zeros_like(tensor))


@pytest.mark.skipif(not backends.HAS_NATIVE, reason="hooks give None to tensors inside")
class TestLookingInside:
    """Who watches a tensor of the critic sees the zeros that stock autograd sends there."""

    def run(self, choice, watch):
        torch.manual_seed(5)
        critic = dcgan()
        x = torch.randn(2, 3, 32, 32, requires_grad=True)
        hidden = F.leaky_relu(critic[0](x), 0.2)
        logits = critic[2:](hidden)
        return watch(
            hidden, gf.penalty_from_logits(logits, x, how=gf.Differentiation(graph_cut=choice))
        )

    @pytest.mark.parametrize("choice", ["auto", "off"])
    def test_autograd_grad_of_a_hidden_tensor(self, choice):
        gradient = self.run(choice, lambda h, p: torch.autograd.grad(p, h)[0])
        assert torch.equal(gradient, torch.zeros_like(gradient))

    @pytest.mark.parametrize("choice", ["auto", "off"])
    def test_a_tensor_hook(self, choice):
        def watch(hidden, penalty):
            seen = []
            hidden.register_hook(seen.append)
            penalty.backward()
            return seen

        (gradient,) = self.run(choice, watch)
        assert torch.equal(gradient, torch.zeros_like(gradient))

    @pytest.mark.parametrize("choice", ["auto", "off"])
    def test_retain_grad(self, choice):
        def watch(hidden, penalty):
            hidden.retain_grad()
            penalty.backward()
            return hidden.grad

        gradient = self.run(choice, watch)
        assert torch.equal(gradient, torch.zeros_like(gradient))


# ---- infinities ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("choice", ["auto", "off"])
def test_an_infinity_in_the_input_makes_nan_gradients_as_in_stock(engine, choice, bad):
    """So that a GradScaler skips the step."""
    critic = dcgan()
    x = torch.randn(2, 3, 32, 32)
    x[0, 0, 5, 5] = bad
    penalty_backward(critic, x, choice)
    assert not all(p.grad.isfinite().all() for p in critic.parameters() if p.grad is not None)


NONFINITE = {
    "a critic that masks logits": (
        lambda critic, z: critic(z).masked_fill(torch.tensor([[True], [False]]), -torch.inf),
        0.5,
    ),
    "a critic that repairs its input": (lambda critic, z: critic(torch.nan_to_num(z)), torch.nan),
    "a critic that clamps its input": (lambda critic, z: critic(z.clamp(-1, 1)), -torch.inf),
    "a critic that does neither": (lambda critic, z: critic(z), torch.inf),
}


@pytest.mark.parametrize("name", NONFINITE)
def test_infinities_have_the_effect_that_they_have_in_stock(engine, name):
    wrap, value = NONFINITE[name]
    cut, stock = two_copies(dcgan)
    x = torch.randn(2, 3, 32, 32)
    x[0, 0, 5, 5] = value
    for critic, choice in ((cut, "auto"), (stock, "off")):
        gf.r1_penalty(
            lambda z, c=critic: wrap(c, z), x, how=gf.Differentiation(graph_cut=choice)
        ).backward()
    for a, b in zip(cut.parameters(), stock.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None)
        assert a.grad is None or torch.allclose(a.grad, b.grad, rtol=0, atol=0, equal_nan=True)


def test_huge_finite_logits_are_not_taken_for_infinite():
    class Huge(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(8, 4)

        def forward(self, x):
            return F.relu(self.linear(x)) + 3e38

    critic = Huge()
    gf.r1_penalty(critic, torch.randn(3, 8)).backward()
    assert critic.linear.weight.grad.isfinite().all()


def test_prelu_is_cut_only_while_its_weight_has_no_inner_gradient(engine):
    """With the weight in the inner gradient the edge is genuine: wrong by 1e-2 if cut."""
    cut, stock = two_copies(CRITICS["mixed_activations"].make)
    x = torch.randn(2, 3, 32, 32)
    for critic, wanted in ((cut, True), (stock, False)):
        point = x.clone().requires_grad_()
        prelu = next(m for m in critic if isinstance(m, nn.PReLU))
        grads = torch.autograd.grad(critic(point).sum(), [point, prelu.weight], create_graph=True)
        grads = second_order.cut(grads).grads if wanted else grads
        (grads[0].square().sum() + grads[1].square().sum()).backward()
    assert_same_gradients(cut, stock)


def test_the_phase_of_a_complex_number_is_left_alone(engine):
    results = []
    for wanted in (True, False):
        z = torch.tensor([1 + 2j, -0.5 + 0.1j], dtype=torch.complex128, requires_grad=True)
        (g,) = torch.autograd.grad(z.abs().square().sum() + z.abs().sum(), z, create_graph=True)
        g = second_order.cut([g]).grads[0] if wanted else g
        (g.real * torch.tensor([0.3, 2.0], dtype=torch.float64)).sum().backward()
        results.append(z.grad)
    assert torch.equal(*results)


def test_threads_one_and_two_agree_to_the_bit():
    before = torch.get_num_threads()
    grads = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            cut, stock = two_copies(dcgan)
            x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
            penalty_backward(cut, x, "auto")
            penalty_backward(stock, x, "off")
            assert_same_gradients(cut, stock)
            grads.append(cut[0].weight.grad)
    finally:
        torch.set_num_threads(before)
    assert grads[0].shape == grads[1].shape


def test_the_graph_is_freed_with_the_penalty():
    critic = dcgan()
    penalty_backward(critic, torch.randn(2, 3, 32, 32), "auto")
    gc.collect()
    before = sum(type(o) is torch.Tensor for o in gc.get_objects())
    for _ in range(5):
        critic.zero_grad()
        penalty_backward(critic, torch.randn(2, 3, 32, 32), "auto")
    gc.collect()
    assert sum(type(o) is torch.Tensor for o in gc.get_objects()) <= before


# ---- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("x",), TypeError, "grads: expected a tensor"),
        ((torch.ones(2),), ValueError, "create_graph=True"),
        (([torch.ones(2), None],), TypeError, "grads: expected a tensor"),
    ],
)
def test_wrong_gradients_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        gf.cut_second_order(*arguments)


def test_an_unknown_choice_is_refused():
    with pytest.raises(ValueError, match="zero_grads: expected one of stock, all, none"):
        gf.cut_second_order(torch.ones(2, requires_grad=True), zero_grads="some")
