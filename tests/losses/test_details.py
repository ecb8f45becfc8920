"""LossDetails: parts and mean logits, differentiable, from one pass over the logits."""

from __future__ import annotations

import pytest
import reference
import torch
from oracle import assert_close, draw
from torch import Tensor

import ganloss_fast as gf
from ganloss_fast import ops

LOSSES = {
    "bce": "bce",
    "smoothed": gf.BCE(real_label=0.9),
    "hinge": "hinge",
    "least_squares": "least_squares",
    "drift": gf.Wasserstein(drift=0.1),
    "paired": gf.BCE(relativistic="paired"),
    "average": gf.Hinge(relativistic="average"),
}


def outputs(dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], list[Tensor]]:
    """Real and fake logits of two discriminator outputs."""
    sides = [[draw(*shape, dtype=dtype).requires_grad_() for shape in ((6, 5), (7,))] for _ in "rf"]
    return sides[0], sides[1]


def lecam(details: gf.LossDetails) -> Tensor:
    """LeCam regularisation against moving averages of 0.3 and -0.2 (Tseng et al., 2021)."""
    return ((details.real_mean + 0.2).square() + (0.3 - details.fake_mean).square()).sum()


def plain_lecam(reals: list[Tensor], fakes: list[Tensor]) -> Tensor:
    return sum((r.mean() + 0.2).square() + (0.3 - f.mean()).square() for r, f in zip(reals, fakes))


@pytest.mark.parametrize("name", LOSSES)
def test_mean_logits_are_differentiable_in_both_orders(implementation, name):
    reals, fakes = outputs()
    details = gf.discriminator_loss_details(reals, fakes, LOSSES[name])
    assert_close(details.real_mean, torch.stack([r.mean() for r in reals]), 1e-14)
    assert_close(details.fake_mean, torch.stack([f.mean() for f in fakes]), 1e-14)
    logits = reals + fakes
    actual = torch.autograd.grad(lecam(details), logits, create_graph=True)
    truth = torch.autograd.grad(plain_lecam(reals, fakes), logits, create_graph=True)
    directions = [draw(*t.shape, dtype=t.dtype) for t in logits]
    for gradient, expected in zip(actual, truth):
        assert_close(gradient, expected, 1e-13)
    actual = torch.autograd.grad(actual, logits, directions)
    truth = torch.autograd.grad(truth, logits, directions)
    for gradient, expected in zip(actual, truth):
        assert_close(gradient, expected, 1e-13)


@pytest.mark.parametrize("name", LOSSES)
def test_mean_logits_add_to_the_gradient_of_the_loss(implementation, name):
    reals, fakes = outputs()
    details = gf.discriminator_loss_details(reals, fakes, LOSSES[name])
    actual = torch.autograd.grad(3 * details.total + 0.1 * lecam(details), reals + fakes)
    plain = reference.discriminator_loss(reals, fakes, LOSSES[name])
    truth = torch.autograd.grad(3 * plain + 0.1 * plain_lecam(reals, fakes), reals + fakes)
    for gradient, expected in zip(actual, truth):
        assert_close(gradient, expected, 1e-13)


def test_the_generator_knows_the_mean_of_every_side_it_sees(implementation):
    reals, fakes = outputs()
    for relativistic in ("paired", "average"):
        details = gf.generator_loss_details(fakes, gf.BCE(relativistic=relativistic), real=reals)
        assert_close(details.real_mean, torch.stack([r.mean() for r in reals]), 1e-14)
        assert_close(details.fake_mean, torch.stack([f.mean() for f in fakes]), 1e-14)
        (gradient,) = torch.autograd.grad(details.fake_mean[1], fakes[1])
        assert_close(gradient, torch.full_like(gradient, 1 / 7), 1e-14)
    details = gf.generator_loss_details(fakes, "hinge")
    assert details.real_mean is None
    assert details.fake_mean.shape == (2,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_mean_logits_of_every_dtype(implementation, dtype):
    reals, fakes = outputs(dtype)
    details = gf.discriminator_loss_details(reals, fakes, "hinge")
    assert details.real_mean.dtype == torch.float32
    assert_close(details.real_mean, torch.stack([r.double().mean() for r in reals]), 1e-6)
    (gradient,) = torch.autograd.grad(details.real_mean.sum(), reals[0])
    assert gradient.dtype == dtype
    assert_close(gradient, torch.full((6, 5), 1 / 30), torch.finfo(dtype).eps)


def test_only_the_mean_that_is_wanted_gets_a_gradient(implementation):
    reals, fakes = outputs()
    details = gf.discriminator_loss_details([r.detach() for r in reals], fakes, "bce")
    assert not details.real_mean.requires_grad
    assert details.fake_mean.requires_grad
    assert not details.stats.fake.mean.requires_grad
    assert torch.equal(details.stats.fake.mean, details.fake_mean.detach())


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("as_tensors", [False, True], ids=["numbers", "tensors"])
def test_parts_are_unweighted_and_the_total_weighted(implementation, as_tensors, reduction):
    reals, fakes = outputs()
    numbers = {"real_weight": 0.25, "fake_weight": 3.0}
    weights = {k: torch.tensor(v).double() for k, v in numbers.items()} if as_tensors else numbers
    for name in ("bce", "smoothed", "drift", "average"):
        details = gf.discriminator_loss_details(
            reals, fakes, LOSSES[name], output_reduction=reduction, **weights
        )
        plain = reference.discriminator_loss(
            reals, fakes, LOSSES[name], output_reduction=reduction, **numbers
        )
        assert_close(details.total, plain, 1e-14)
        share = 1 if reduction == "sum" else 0.5
        assert_close(details.per_output.sum() * share, plain, 1e-14)
        assert_close(0.25 * details.real + 3 * details.fake, details.per_output, 1e-14)
        actual = torch.autograd.grad(details.total, reals + fakes)
        truth = torch.autograd.grad(plain, reals + fakes)
        for gradient, expected in zip(actual, truth):
            assert_close(gradient, expected, 1e-13)


@pytest.mark.cpu_only
def test_a_step_with_details_reads_the_logits_once(native, monkeypatch):
    """One call of the op, and a backward that finds its gradients written."""
    calls = []
    once = ops.multi_tensor_loss
    monkeypatch.setattr(ops, "multi_tensor_loss", lambda *a, **k: calls.append(1) or once(*a, **k))
    reals, fakes = outputs(torch.float32)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        details = gf.discriminator_loss_details(reals, fakes, "bce", fake_weight=0.5)
        (details.total + 0.01 * lecam(details) + details.fake[0]).backward()
    names = [event.name for event in profile.events()]
    assert len(calls) == 1
    assert "ganloss_fast::multi_tensor_loss_backward" not in names
    assert "aten::mean" not in names


def test_a_part_that_is_read_twice_is_one_tensor(implementation):
    details = gf.discriminator_loss_details(*outputs(), "bce")
    for name in ("total", "real", "fake", "per_output", "real_mean", "fake_mean", "stats"):
        assert getattr(details, name) is getattr(details, name)
    assert "total=" in repr(details)


def test_details_are_compiled_in_one_graph(native):
    reals, fakes = outputs(torch.float32)

    def loss(real, fake):
        details = gf.discriminator_loss_details(real, fake, "hinge")
        return details.total + lecam(details) + details.stats.real.mean.sum()

    expected = loss(reals, fakes)
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    actual = compiled(reals, fakes)
    assert_close(actual, expected, 1e-6)
    for gradient, truth in zip(
        torch.autograd.grad(actual, reals), torch.autograd.grad(expected, reals)
    ):
        assert_close(gradient, truth, 1e-6)
