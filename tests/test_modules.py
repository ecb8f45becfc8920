"""The module faces: what they hold is trained, saved, moved and shown, and nothing is misspelt."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

import ganloss_fast as gf

MAPS = [torch.randn(3, 2), torch.randn(3, 5)]


def learnable() -> nn.Parameter:
    return nn.Parameter(torch.tensor(2.0))


def call(module: nn.Module) -> Tensor:
    """The module on inputs that it is for."""
    x = torch.linspace(-1, 1, 4).view(4, 1)
    if isinstance(module, gf.FeatureMatchingLoss):
        return module(MAPS, [m.flip(0) for m in MAPS])
    if isinstance(module, gf.GradientPenalty):
        torch.manual_seed(0)
        return module(nn.Linear(1, 1), x, -x)
    return module(x, -x) if isinstance(module, gf.DiscriminatorLoss) else module(x)


WEIGHTED = {
    "discriminator": lambda w: gf.DiscriminatorLoss("hinge", real_weight=w),
    "generator": lambda w: gf.GeneratorLoss("bce", weight=w),
    "matching": lambda w: gf.FeatureMatchingLoss(weight=w),
    "penalty": lambda w: gf.GradientPenalty(weight=w),
}
weighted = pytest.mark.parametrize("make", WEIGHTED.values(), ids=WEIGHTED)


@weighted
def test_a_weight_that_learns_is_a_parameter(make):
    weight = learnable()
    module = make(weight)
    assert [p for p in module.parameters() if p is weight] == [weight]
    before = call(module)
    before.backward()
    assert weight.grad is not None
    assert weight.grad != 0
    with torch.no_grad():
        weight.add_(1.0)
    assert call(module) != before


@weighted
def test_it_survives_a_checkpoint_a_copy_and_a_pickle(make):
    module = make(learnable())
    with torch.no_grad():
        next(module.parameters()).fill_(3.0)
    fresh = make(learnable())
    fresh.load_state_dict(module.state_dict())
    for other in (fresh, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(call(other), call(module))


@weighted
def test_functional_call_replaces_the_weight(make):
    module = make(learnable())
    (name,) = dict(module.named_parameters())
    replaced = {name: torch.tensor(0.0)}
    with torch.no_grad():
        next(module.parameters()).fill_(0.0)
        expected = call(module)
        next(module.parameters()).fill_(5.0)

    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self) -> Tensor:
            return call(self.inner)

    given = {f"inner.{key}": value for key, value in replaced.items()}
    assert torch.equal(torch.func.functional_call(Holder(), given, ()), expected)


def test_a_label_map_inside_a_loss_moves_with_the_module():
    module = gf.DiscriminatorLoss(gf.BCE(real_label=torch.rand(4, 1), fake_label=0.1))
    assert set(module.state_dict()) == {"real_label"}
    moved = copy.deepcopy(module).to("meta").options["loss"]
    assert moved.real_label.device.type == "meta"
    assert moved.fake_label == 0.1
    assert module.double().options["loss"].real_label.dtype == torch.float64


def test_masks_of_several_outputs_are_held():
    mask = torch.tensor([[1.0], [0.0], [1.0], [0.0]])
    module = gf.GeneratorLoss("bce", mask=[mask, None])
    assert set(module.state_dict()) == {"mask_0"}
    f = [torch.randn(4, 1), torch.randn(4, 1)]
    assert torch.equal(module(f), gf.generator_loss(f, "bce", mask=[mask, None]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gf.GradientPenalty(wieght=2), "Did you mean weight"),
        (lambda: gf.DiscriminatorLoss("hinge", real_wieght=1), "Did you mean real_weight"),
        (lambda: gf.GeneratorLoss("hinge", real_weight=1), "GeneratorLoss: there is no option"),
        (lambda: gf.FeatureMatchingLoss(critereon="l1"), "Did you mean criterion"),
    ],
)
def test_a_misspelt_option_raises_where_it_is_written(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_its_repr_shows_options_and_no_data():
    module = gf.DiscriminatorLoss("hinge", real_weight=torch.tensor(0.123))
    assert "real_weight=a tensor of shape []" in repr(module)
    assert "0.123" not in repr(module)
    assert "hinge" in repr(gf.GeneratorLoss("hinge")).lower()
