"""frozen: which parameters it touches, and that it leaves them as they were."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import ganloss_fast as gf


def trainable(module: nn.Module) -> list[bool]:
    return [parameter.requires_grad for parameter in module.parameters()]


def test_several_modules_are_frozen_together_and_yielded_in_order():
    a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    with gf.frozen(a, b, a) as modules:
        assert modules == (a, b, a)
        assert trainable(a) + trainable(b) == [False] * 4
    assert trainable(a) + trainable(b) == [True] * 4


@pytest.mark.parametrize("position", [0, 1])
def test_a_lazy_layer_is_refused_and_nothing_is_frozen(position):
    layers = [nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(1))]
    modules = layers if position else layers[::-1]
    with pytest.raises(ValueError, match=r"1\.weight of Sequential belongs to a lazy layer"):
        gf.frozen(*modules).__enter__()
    layers[1](torch.zeros(1, 2))
    assert all(trainable(layers[0]) + trainable(layers[1]))


def test_a_parameter_that_cannot_be_frozen_leaves_the_others_as_they_were():
    class Stubborn(nn.Parameter):
        def requires_grad_(self, requires_grad=True):
            raise RuntimeError("not this one")

    module = nn.Linear(2, 2)
    module.last = Stubborn(torch.zeros(1))
    with pytest.raises(RuntimeError, match="not this one"):
        gf.frozen(module).__enter__()
    assert all(trainable(module))


def test_layers_that_the_generator_shares_keep_its_gradient():
    """By hand: loss = sum(critic(shared(x))), so d/d shared.weight is the critic's row times x."""
    torch.manual_seed(0)
    shared, head = nn.Linear(3, 2, bias=False).double(), nn.Linear(2, 1, bias=False).double()
    critic, x = nn.Sequential(shared, head), torch.randn(4, 3, dtype=torch.float64)
    with gf.frozen(critic, keep=shared):
        assert trainable(critic) == [True, False]
        critic(x).sum().backward()
    wanted = head.weight.detach().t() @ x.sum(0, keepdim=True)
    assert torch.allclose(shared.weight.grad, wanted, rtol=1e-14)
    assert head.weight.grad is None
    assert trainable(critic) == [True, True]


def test_keep_takes_several_modules():
    a, b, c = (nn.Linear(1, 1) for _ in range(3))
    with gf.frozen(nn.ModuleList([a, b, c]), keep=[a, b]):
        assert [trainable(m)[0] for m in (a, b, c)] == [True, True, False]


def test_parameters_that_come_and_go_inside_the_block():
    module = nn.Linear(2, 2)
    weight = module.weight
    with gf.frozen(module):
        module.weight = nn.Parameter(torch.zeros(2, 2))
        module.extra = nn.Parameter(torch.zeros(1))
    assert weight.requires_grad
    assert all(trainable(module))


@pytest.mark.parametrize(
    ("modules", "options", "message"),
    [
        ((), {}, "modules: expected one torch.nn.Module at least"),
        (([nn.Linear(1, 1)],), {}, r"Unpack it: frozen\(\*discriminators\)"),
        ((nn.Linear(1, 1), "x"), {}, "modules: expected a torch.nn.Module"),
        ((nn.Linear(1, 1),), {"keep": 3}, "keep: expected a torch.nn.Module"),
        ((nn.Linear(1, 1),), {"keep": [3]}, "keep: expected a torch.nn.Module"),
    ],
)
def test_what_is_not_a_module_is_refused(modules, options, message):
    with pytest.raises(TypeError, match=message):
        gf.frozen(*modules, **options).__enter__()
    assert all(all(trainable(m)) for m in modules if isinstance(m, nn.Module))


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
class TestCompiled:
    @pytest.mark.parametrize("fullgraph", [True, False])
    def test_it_is_refused_by_name_inside(self, fullgraph):
        module = nn.Linear(2, 1)

        @torch.compile(fullgraph=fullgraph, backend="eager")
        def step(x):
            with gf.frozen(module):
                return module(x).sum()

        with pytest.raises(Exception, match="Enter the block outside of the compiled function"):
            step(torch.randn(3, 2))
        assert all(trainable(module))

    @pytest.mark.parametrize("in_place", [True, False])
    def test_a_compiled_critic_learns_again_after_the_block(self, in_place):
        """The other way round too: the block is not ignored by what was compiled before it."""
        critic = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).double()
        run = critic
        if in_place:
            critic.compile(backend="aot_eager")
        else:
            run = torch.compile(critic, backend="aot_eager")
        x = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
        for _ in range(2):
            with gf.frozen(critic):
                run(x).sum().backward()
            assert all(p.grad is None for p in critic.parameters())
            run(x).sum().backward()
            got = [p.grad.clone() for p in critic.parameters()]
            a, b = critic[0], critic[2]
            plain = b.weight @ torch.tanh(a.weight @ x.detach().t() + a.bias[:, None]) + b.bias
            wanted = torch.autograd.grad(plain.sum(), list(critic.parameters()))
            for mine, theirs in zip(got, wanted, strict=True):
                assert torch.allclose(mine, theirs, rtol=1e-12)
            critic.zero_grad()
