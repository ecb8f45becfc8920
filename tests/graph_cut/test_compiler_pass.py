"""The compiler pass: the compiled graph gets what the graph cut gives, and the same gradients."""

from __future__ import annotations

import copy

import pytest
import torch
import torch._inductor.lowering
from critics import CRITICS
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._inductor.decomposition import select_decomp_table
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

import ganloss_fast as gf
from ganloss_fast.diagnose import CountFlops
from ganloss_fast.graph_cut.compiler_pass import remove_zero_branch

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.usefixtures("fresh_compiler"),
]


class CountingBackend:
    """What inductor does up to the pass, and then eager execution: of the graph as it was, for
    its FLOPs, and of what the pass leaves."""

    def __init__(self) -> None:
        self.before = self.after = 0
        self.compile = aot_autograd(
            fw_compiler=self._compiler,
            decompositions=select_decomp_table(),
            partition_fn=min_cut_rematerialization_partition,
        )

    def _compiler(self, module: torch.fx.GraphModule, example_inputs):
        graph = torch.fx.Graph()
        graph.output(graph.graph_copy(module.graph, {}))
        uncut = torch.fx.GraphModule(module, graph)
        remove_zero_branch(module.graph)
        module.recompile()

        def run(*inputs):
            with CountFlops() as counter:
                uncut(*inputs)
            self.before += counter.total
            with CountFlops() as counter:
                result = module(*inputs)
            self.after += counter.total
            return result

        return make_boxed_func(run)


def r1_gradients(critic: nn.Module, step) -> tuple[torch.Tensor, list[torch.Tensor]]:
    critic.zero_grad()
    value = step()
    value.backward()
    return value.detach(), [
        torch.zeros_like(p) if p.grad is None else p.grad for p in critic.parameters()
    ]


def assert_alike(got, expected, tolerance: float) -> None:
    (value, gradients), (wanted, truths) = got, expected
    assert torch.allclose(value, wanted, rtol=tolerance, atol=0)
    scale = max(truth.abs().max() for truth in truths)
    for gradient, truth in zip(gradients, truths, strict=True):
        assert (gradient - truth).abs().max() <= tolerance * scale


def counted_step(critic: nn.Module, x: torch.Tensor) -> CountingBackend:
    """Runs a compiled R1 step; compares its gradients with the eager step's."""
    eager = copy.deepcopy(critic)
    backend = CountingBackend()
    step = torch.compile(
        lambda z: gf.r1_penalty(critic, z), fullgraph=True, backend=backend.compile
    )
    got = r1_gradients(critic, lambda: step(x))
    assert_alike(got, r1_gradients(eager, lambda: gf.r1_penalty(eager, x)), 1e-12)
    return backend


def forward_flops(critic: nn.Module, x: torch.Tensor) -> int:
    with torch.no_grad(), CountFlops() as counter:
        copy.deepcopy(critic)(x)
    return counter.total


@pytest.mark.parametrize("name", CRITICS)
def test_a_compiled_step_gets_what_the_graph_cut_gives(name):
    """No more FLOPs than the eager cut leaves, and the gradients of the eager step."""
    case = CRITICS[name]
    has_batch_norm = name == "patchgan_batch_norm"  # refused in training, linear in eval mode
    critic = case.make().double().train(not has_batch_norm)
    x = torch.randn(case.shape, dtype=torch.float64)
    backend = counted_step(critic, x)
    assert backend.after / forward_flops(critic, x) <= case.cut + 0.001
    if case.cut == case.stock and not has_batch_norm:
        assert backend.after == backend.before


def test_the_pass_keeps_a_genuine_branch():
    layers = [nn.Conv2d(3, 4, 3), nn.GELU(), nn.Conv2d(4, 4, 3), nn.GELU(), nn.Conv2d(4, 1, 3)]
    critic = nn.Sequential(*layers).double()
    backend = counted_step(critic, torch.randn(2, 3, 12, 12, dtype=torch.float64))
    assert backend.before == backend.after


def after_pass(function, *inputs: torch.Tensor):
    """Results of a function without and with the pass."""
    module = make_fx(function, tracing_mode="fake")(*inputs)
    remove_zero_branch(module.graph)
    module.recompile()
    return function(*inputs), module(*inputs)


X = torch.randn(4, 6, 8)
VIEWS = {
    "whole": lambda x: x,
    "transposed": lambda x: x.transpose(0, 2),
    "slice": lambda x: x[:, 1:4],
    "expanded": lambda x: x[:1].expand(4, 6, 8),
    "channels last": lambda x: x[None].to(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_sum_with_zero_keeps_its_strides(view):
    """Kernels read memory by the strides that the compiler believes in."""

    def function(x):
        part = VIEWS[view](x)
        left, right = part + torch.zeros_like(part), torch.zeros(part.shape) + part
        return [value.contiguous().flatten() for value in (left, right)] + [left, right]

    for plain, passed in zip(*after_pass(function, X), strict=True):
        assert torch.equal(plain, passed)
        assert plain.stride() == passed.stride()


@pytest.mark.parametrize("view", VIEWS)
def test_a_zero_keeps_its_strides(view):
    def function(x):
        part = VIEWS[view](x)
        return [part * torch.zeros_like(part), (part * torch.zeros(part.shape)).sum(0)]

    for plain, passed in zip(*after_pass(function, X), strict=True):
        assert torch.equal(plain, passed)
        assert plain.stride() == passed.stride()


def test_a_sum_with_zero_that_is_a_result_stays_a_tensor_of_its_own():
    """Two parameters must not share a gradient, nor may a result be an input."""

    def function(x):
        y = x * 2
        return x + torch.zeros_like(x), y, y + torch.zeros_like(y)

    _, results = after_pass(function, X)
    assert len({X.data_ptr(), *(result.data_ptr() for result in results)}) == 4


def test_the_pass_believes_no_zero_that_is_none():
    def function(x):
        zero = torch.zeros_like(x)
        return [
            torch.nn.functional.pad(zero, (1, 1), value=2.0),
            torch.where(x > 0, zero, x),
            zero.index_put((torch.tensor([0, 2]),), x[:2]),
            zero.scatter_add(0, torch.zeros(x.shape, dtype=torch.int64), x),
            torch.cat([zero, x]),
            zero.masked_fill(x > 0, 3.0),
            torch.addmm(x[0], zero[0, :, :6], x[1, :, :]),
            torch.nn.functional.conv1d(zero, x[:2, :, :3], bias=x[0, :2, 0]),
            zero.exp(),
        ]

    for plain, passed in zip(*after_pass(function, X), strict=True):
        assert torch.equal(plain, passed)


def test_the_pass_in_the_real_compiler():
    """Both norms, pooling and stride in one small critic, since inductor takes its time. Spectral
    norm in training: right for weights of many columns; see compile_options."""
    critic = nn.Sequential(
        weight_norm(nn.Conv2d(3, 4, 3, 2)),
        nn.LeakyReLU(0.2, inplace=True),
        nn.MaxPool2d(2),
        spectral_norm(nn.Conv2d(4, 5, 3)),
    )
    eager, x = copy.deepcopy(critic), torch.randn(2, 3, 16, 16)
    step = torch.compile(
        lambda z: gf.r1_penalty(critic, z), fullgraph=True, options=gf.compile_options()
    )
    got = r1_gradients(critic, lambda: step(x))
    assert_alike(got, r1_gradients(eager, lambda: gf.r1_penalty(eager, x)), 3e-6)
    for compiled, reference in zip(critic.buffers(), eager.buffers(), strict=True):
        assert torch.allclose(compiled, reference, rtol=1e-6)
