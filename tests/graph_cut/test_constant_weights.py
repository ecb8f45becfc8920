"""A convolution with a constant weight: its double backward without the weight's gradient."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
import torch.nn.functional as F
from convolutions import CountConvolutions
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import ganloss_fast as gf
from ganloss_fast import backends
from ganloss_fast._torch import without_onednn

pytestmark = pytest.mark.skipif(not backends.HAS_NATIVE, reason="needs the native extension")

MODES = ("auto", "fast")


class Filtered(nn.Module):
    """A gain to learn before a constant filter, an activation and a gain after it."""

    def __init__(self, convolution, channels: int, weight: Tensor) -> None:
        super().__init__()
        self.convolution = convolution
        self.gain = nn.Parameter(torch.linspace(0.5, 1.5, channels))
        self.after = nn.Parameter(torch.tensor(1.3))
        self.register_buffer("weight", weight)

    def forward(self, x: Tensor) -> Tensor:
        gain = self.gain.reshape(-1, *[1] * (x.dim() - 2))
        y = self.convolution(F.leaky_relu(x * gain, 0.2), self.weight)
        return F.leaky_relu(y * self.after, 0.2).flatten(1).square().sum(1)


def blur(channels: int) -> Filtered:
    return Filtered(
        lambda x, w: F.conv2d(x, w, stride=2, padding=1, groups=channels),
        channels,
        torch.rand(channels, 1, 3, 3),
    )


def inner_gradient(critic: nn.Module, x: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return gradient


def penalty_gradients(critic: nn.Module, x: Tensor, graph_cut: str) -> list[Tensor | None]:
    critic.zero_grad(set_to_none=True)
    gf.r1_penalty(critic, x, how=gf.Differentiation(graph_cut=graph_cut)).backward()
    return [parameter.grad for parameter in critic.parameters()]


def assert_same(found: list[Tensor | None], stock: list[Tensor | None]) -> None:
    """Equal to the bit, and None where and only where the other is None."""
    for mine, theirs in zip(found, stock, strict=True):
        assert (mine is None) == (theirs is None)
        assert mine is None or torch.equal(mine, theirs)


# ---- what it saves ---------------------------------------------------------------------------


def backward_convolutions(critic: nn.Module, x: Tensor, graph_cut: str) -> int:
    penalty = gf.r1_penalty(critic, x, how=gf.Differentiation(graph_cut=graph_cut))
    with CountConvolutions() as count:
        penalty.backward()
    return count.total


def test_a_blur_of_256_channels_takes_no_convolution_for_each():
    """Stock: the gradient of what came in, and 256 for a weight that needs none. One more, of the
    square at the end, is genuine in every mode."""
    critic, x = blur(256), torch.randn(4, 256, 8, 8)
    assert backward_convolutions(critic, x, "off") == 257 + 1
    assert backward_convolutions(critic, x, "auto") == 1 + 1
    assert backward_convolutions(critic, x, "fast") == 1 + 1


def test_frozen_layers_compute_no_weight_gradient_either():
    layers = [nn.Conv2d(3, 8, 3), nn.LeakyReLU(0.2), nn.Conv2d(8, 4, 3), nn.LeakyReLU(0.2)]
    critic = nn.Sequential(*layers, nn.Conv2d(4, 1, 3))
    critic[2].requires_grad_(False)
    x = torch.randn(2, 3, 12, 12)
    off, auto = (backward_convolutions(critic, x, how) for how in ("off", "auto"))
    # The dead branch is three; of the node in the middle, one of two remains.
    assert off - auto == 2 + 1
    assert_same(penalty_gradients(critic, x, "auto"), penalty_gradients(critic, x, "off"))


# ---- the same to the bit ---------------------------------------------------------------------

FILTERS = {
    "dense": (lambda x, w: F.conv2d(x, w), (2, 4, 7, 6), (6, 4, 3, 3)),
    "groups": (lambda x, w: F.conv2d(x, w, groups=2), (2, 4, 7, 6), (6, 2, 3, 3)),
    "depthwise": (lambda x, w: F.conv2d(x, w, padding=1, groups=4), (2, 4, 7, 6), (4, 1, 3, 3)),
    "strides that leave a rest": (
        lambda x, w: F.conv2d(x, w, stride=(3, 2), groups=4),
        (2, 4, 9, 8),
        (4, 1, 3, 3),
    ),
    "dilated": (lambda x, w: F.conv2d(x, w, dilation=2, groups=4), (2, 4, 9, 8), (4, 1, 3, 3)),
    "one dimension": (
        lambda x, w: F.conv1d(x, w, stride=2, padding=2, groups=4),
        (2, 4, 21),
        (8, 1, 5),
    ),
    "three dimensions": (
        lambda x, w: F.conv3d(x, w, padding=1, groups=2),
        (2, 4, 5, 6, 4),
        (4, 2, 3, 3, 3),
    ),
    "transposed": (
        lambda x, w: F.conv_transpose2d(x, w, stride=2, padding=1, output_padding=1, groups=4),
        (2, 4, 5, 6),
        (4, 1, 3, 3),
    ),
    "expanded weight": (
        lambda x, w: F.conv2d(x, w.expand(4, 1, 3, 3), groups=4),
        (2, 4, 7, 6),
        (1, 1, 3, 3),
    ),
    "bias": (
        lambda x, w: F.conv2d(x, w, w.new_ones(4), groups=4),
        (2, 4, 7, 6),
        (4, 1, 3, 3),
    ),
    "one sample": (lambda x, w: F.conv2d(x, w, groups=4), (1, 4, 7, 6), (4, 1, 3, 3)),
}
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def filtered(name: str, dtype: torch.dtype = torch.float32) -> tuple[Filtered, Tensor]:
    torch.manual_seed(3)
    convolution, shape, weight = FILTERS[name]
    critic = Filtered(convolution, shape[1], torch.randn(weight) / 8).to(dtype)
    return critic, torch.randn(shape, dtype=dtype)


def assert_as_stock(critic: nn.Module, x: Tensor, mode: str) -> None:
    assert_same(penalty_gradients(critic, x, mode), penalty_gradients(critic, x, "off"))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", FILTERS)
def test_every_kind_of_filter(name, dtype, mode):
    assert_as_stock(*filtered(name, dtype), mode)


@pytest.mark.parametrize("name", ["depthwise", "transposed", "dense"])
def test_channels_last(name):
    critic, x = filtered(name)
    critic.weight = critic.weight.contiguous(memory_format=torch.channels_last)
    assert_as_stock(critic, x.contiguous(memory_format=torch.channels_last), "auto")


@pytest.mark.parametrize("name", ["depthwise", "groups", "transposed", "one dimension"])
def test_without_onednn(name):
    with without_onednn():
        assert_as_stock(*filtered(name), "auto")


def test_deterministic_mode():
    torch.use_deterministic_algorithms(True)
    try:
        assert_as_stock(*filtered("depthwise"), "auto")
    finally:
        torch.use_deterministic_algorithms(False)


def test_autocast():
    critic, x = filtered("groups")
    results = []
    for how in ("auto", "off"):
        critic.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            penalty = gf.r1_penalty(critic, x, how=gf.Differentiation(graph_cut=how))
        penalty.backward()
        results.append([p.grad for p in critic.parameters()])
    assert_same(*results)


@pytest.mark.parametrize("context", ["save_on_cpu", "checkpoint"])
def test_under_saved_tensor_hooks(context):
    critic, x = filtered("depthwise")

    def run(how: str) -> list[Tensor | None]:
        if context == "save_on_cpu":
            with torch.autograd.graph.save_on_cpu():
                return penalty_gradients(critic, x, how)
        critic.zero_grad()
        forward = functools.partial(checkpoint, critic, use_reentrant=False)
        gf.r1_penalty(forward, x, how=gf.Differentiation(graph_cut=how)).backward()
        return [p.grad for p in critic.parameters()]

    assert_same(run("auto"), run("off"))


# ---- what stock autograd promises ------------------------------------------------------------


@pytest.mark.parametrize("learns", [True, False])
def test_no_samples(learns):
    """Of an image without elements a convolution sends nothing on: None, not zeros."""
    critic, x = filtered("depthwise")
    weight = critic.weight.requires_grad_(learns)
    wanted = [*critic.parameters(), *([weight] if learns else [])]
    results = []
    for fast_weights in (None, False, True):
        gradient = inner_gradient(critic, x[:0].requires_grad_())
        if fast_weights is not None:
            gradient = gf.cut_second_order(gradient, fast_weights=fast_weights)
        results.append(
            list(torch.autograd.grad(gradient.square().sum(), wanted, allow_unused=True))
        )
    assert_same(results[1], results[0])
    assert_same(results[2], results[0])


def of_a_filter_alone(weight: Tensor, is_cut: bool) -> Tensor:
    """A loss of an input gradient, in whose graph no other node saves a tensor."""
    d, x = torch.ones(2, 4, 5, 5, requires_grad=True), torch.ones(2, 4, 7, 7)
    gradient = torch.ops.aten.convolution_backward(
        d, x, weight, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 4, [True, False, False]
    )[0]
    if is_cut:
        gradient = gf.cut_second_order(gradient)
    return gradient.sum()


@pytest.mark.parametrize("is_cut", [True, False])
def test_a_filter_changed_between_is_refused(is_cut):
    weight = torch.ones(4, 1, 3, 3)
    loss = of_a_filter_alone(weight, is_cut)
    weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("is_cut", [True, False])
def test_backward_twice(is_cut):
    loss = of_a_filter_alone(torch.ones(4, 1, 3, 3), is_cut)
    loss.backward(retain_graph=True)
    loss.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


def root_is_a_filter(x: Tensor) -> tuple[nn.Module, Tensor]:
    """The gradient's own node is the convolution's."""
    layers = [nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.Tanh(), nn.Conv2d(4, 1, 3)]
    critic = nn.Sequential(*layers).to(x.dtype)
    critic[0].requires_grad_(False)
    gradient = inner_gradient(critic, x)
    assert gradient.grad_fn.name() == "ConvolutionBackwardBackward0"
    return critic, gradient


def test_the_gradient_as_it_was_may_be_used_beside_the_other():
    """In one backward, which releases what both nodes saved, in either order."""
    results = []
    for is_cut in (True, False):
        torch.manual_seed(1)
        x = torch.randn(2, 4, 7, 7, dtype=torch.float64, requires_grad=True)
        critic, gradient = root_is_a_filter(x)
        other = gf.cut_second_order(gradient) if is_cut else gradient
        (gradient.square().sum() + other.abs().sum()).backward()
        results.append([x.grad, *(p.grad for p in critic.parameters())])
    for mine, theirs in zip(*results, strict=True):
        assert (mine is None) == (theirs is None)
        assert mine is None or torch.allclose(mine, theirs, rtol=1e-12, atol=1e-12)


def test_a_hook_on_the_stock_node_still_runs():
    x = torch.randn(2, 4, 7, 7, requires_grad=True)
    _, gradient = root_is_a_filter(x)
    ran = []
    gradient.grad_fn.register_prehook(lambda grads: ran.append(len(grads)))
    gf.cut_second_order(gradient).square().sum().backward()
    assert ran == [3]


def test_an_inner_gradient_of_the_bias_is_left_to_stock():
    results = []
    for is_cut in (True, False):
        torch.manual_seed(1)
        x = torch.randn(2, 4, 7, 7, requires_grad=True)
        layer, head = nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 1, 3)
        layer.weight.requires_grad_(False)
        wanted = [x, layer.bias]
        inner = torch.autograd.grad(head(layer(x).tanh()).sum(), [x, layer.bias], create_graph=True)
        inner = gf.cut_second_order(list(inner)) if is_cut else inner
        total = torch.stack([g.square().sum() for g in inner]).sum()
        results.append(list(torch.autograd.grad(total, [*wanted, head.weight])))
    assert_same(*results)


def test_a_weight_gradient_that_a_custom_function_asked_for_is_left_to_stock():
    """convolution_backward gives the gradient of a constant, too, if asked, and it can be used."""
    results = []
    for is_cut in (True, False):
        torch.manual_seed(1)
        d = torch.randn(2, 4, 5, 5, requires_grad=True)
        x, weight = torch.randn(2, 4, 7, 7), torch.randn(4, 1, 3, 3)
        outputs = torch.ops.aten.convolution_backward(
            d, x, weight, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 4, [True, True, False]
        )[:2]
        outputs = gf.cut_second_order(list(outputs)) if is_cut else outputs
        total = torch.stack([g.square().sum() for g in outputs]).sum()
        results.append(list(torch.autograd.grad(total, [d])))
    assert_same(*results)


def test_the_penaltys_gradient_can_be_differentiated_again():
    results = []
    for how in ("auto", "off"):
        critic, x = filtered("depthwise", torch.float64)
        penalty = gf.r1_penalty(critic, x, how=gf.Differentiation(graph_cut=how))
        parameters = list(critic.parameters())
        grads = torch.autograd.grad(penalty, parameters, create_graph=True)
        results.append(torch.autograd.grad(sum(g.square().sum() for g in grads), parameters))
    assert_same(*map(list, results))


def test_the_gradient_of_a_gradient_under_torch_func():
    critic, x = filtered("depthwise", torch.float64)

    def penalty(parameters, how):
        call = lambda z: torch.func.functional_call(critic, parameters, (z,))  # noqa: E731
        return gf.r1_penalty(call, x, how=gf.Differentiation(graph_cut=how))

    parameters = {name: p.detach() for name, p in critic.named_parameters()}
    found, stock = (torch.func.grad(penalty)(parameters, how) for how in ("auto", "off"))
    assert_same(list(found.values()), list(stock.values()))


def test_twenty_adam_steps_end_at_the_same_parameters():
    first, x = filtered("groups")
    second = copy.deepcopy(first)
    for critic, how in ((first, "auto"), (second, "off")):
        optimizer = torch.optim.Adam(critic.parameters(), lr=1e-2)
        for _ in range(20):
            penalty_gradients(critic, x, how)
            optimizer.step()
    assert_same(list(first.parameters()), list(second.parameters()))
