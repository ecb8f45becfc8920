"""The short way from logits to a total, and what it leaves to the long one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import ganloss_fast as gf
from ganloss_fast import backends, ops
from ganloss_fast.ops import terms
from ganloss_fast.ops.terms import Segment

pytestmark = pytest.mark.skipif(not backends.HAS_NATIVE, reason="the native kernels are not built")

SUMMANDS = (terms.softplus(-1.0), 0.75), (terms.squared(0.5), -0.25)
OTHERS = ((terms.hinge(1.0, 2.0), 1.0),)


def draw(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", [list, tuple])
def test_it_is_the_total_of_the_segments_to_the_bit(kind, dtype):
    reals, fakes = (draw((4, 3), (2, 1, 5, 5), (), dtype=dtype) for _ in range(2))
    short = ops.total_of_sides((kind(reals), SUMMANDS, 2.0), (kind(fakes), OTHERS, 0.5))
    segments = [Segment(t, term, 2.0 * factor) for t in reals for term, factor in SUMMANDS]
    segments += [Segment(t, term, 0.5 * factor) for t in fakes for term, factor in OTHERS]
    long = ops.multi_tensor_loss(segments).total
    assert short is not None
    assert short.equal(long)
    inputs = reals + fakes
    for ours, theirs in zip(torch.autograd.grad(short, inputs), torch.autograd.grad(long, inputs)):
        assert ours.equal(theirs)


def test_a_tensor_is_a_side_of_one_output():
    (logits,) = draw((6, 1))
    total = ops.total_of_sides((logits, OTHERS, 3.0))
    assert total is not None
    torch.testing.assert_close(total, 3.0 * torch.relu(2.0 - logits).mean())
    assert torch.autograd.gradgradcheck(
        lambda t: ops.total_of_sides((t, SUMMANDS, 1.5)), draw((3, 2))
    )


class Wrapped(Tensor):
    pass


PLAIN = torch.ones(3)
LEFT = {
    "a list of another length": ([PLAIN, PLAIN], [PLAIN]),
    "a tensor beside a list of two": (PLAIN, [PLAIN, PLAIN]),
    "no output": ([], []),
    "integers": (PLAIN, torch.ones(3, dtype=torch.int64)),
    "a complex tensor": (PLAIN, torch.ones(3, dtype=torch.complex64)),
    "a sparse tensor": (PLAIN, torch.eye(3).to_sparse()),
    "another device": (PLAIN, torch.ones(3, device="meta")),
    "a parameter": (nn.Parameter(PLAIN), PLAIN),
    "a subclass": (PLAIN, PLAIN.as_subclass(Wrapped)),
    "a nested list": ([[PLAIN]], [[PLAIN]]),
    "a dict": ({"logits": PLAIN}, PLAIN),
    "None": (PLAIN, None),
    "a number": (1.0, PLAIN),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_out_of_the_ordinary_goes_the_long_way(name):
    real, fake = LEFT[name]
    assert ops.total_of_sides((real, SUMMANDS, 1.0), (fake, OTHERS, 1.0)) is None


def test_a_side_without_summands_goes_the_long_way():
    label = torch.full((3, 1), 0.9)
    assert gf.BCE(real_label=label).summands("real") is None
    assert ops.total_of_sides((torch.ones(3, 1), None, 1.0)) is None


def test_another_backend_goes_the_long_way():
    with gf.use_backend("reference"):
        assert ops.total_of_sides((PLAIN, SUMMANDS, 1.0)) is None


def test_what_was_made_for_inference_goes_the_long_way_and_trains():
    with torch.inference_mode():
        real = torch.randn(4, 1)
    (fake,) = draw((4, 1), dtype=torch.float32)
    assert ops.total_of_sides((real, OTHERS, 1.0), (fake, OTHERS, 1.0)) is None
    gf.discriminator_loss(real, fake, "hinge").backward()
    torch.testing.assert_close(fake.grad, (fake.detach() > -1).float() / 4)


LOSSES = {
    "bce": gf.BCE(),
    "labels": gf.BCE(real_label=0.9, fake_label=0.1, generator_label=0.8),
    "saturating": gf.BCE(saturating=True),
    "hinge": gf.Hinge(margin=0.5, generator_form="hinge"),
    "least squares": gf.LeastSquares(real_label=0.9, fake_label=-0.9, generator_label=0.1),
    "drift": gf.Wasserstein(drift=0.1),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_losses_are_the_same_on_both_ways(name, monkeypatch):
    loss = LOSSES[name]
    reals, fakes = draw((5, 2), (3,)), draw((4, 2), (3,))

    def computed() -> list[Tensor]:
        values = [
            gf.discriminator_loss(reals, fakes, loss, real_weight=0.5),
            gf.generator_loss(fakes, loss, weight=0.1),
            gf.discriminator_side_loss(reals, True, loss, weight=2.0),
            gf.discriminator_side_loss(fakes[0], False, loss),
        ]
        return [*values, *torch.autograd.grad(sum(values), reals + fakes)]

    short = computed()
    monkeypatch.setattr(ops, "total_of_sides", lambda *sides: None)
    for ours, theirs in zip(short, computed()):
        torch.testing.assert_close(ours, theirs, rtol=1e-15, atol=0)
