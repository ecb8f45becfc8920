"""gradient_penalty_loss and interpolate in Triton, in its interpreter under the guard."""

from __future__ import annotations

import pytest
import torch
import triton_guard

if triton_guard.why_unavailable():
    pytest.skip(f"interpreter: {triton_guard.why_unavailable()}", allow_module_level=True)

from triton_interpreted import (
    DTYPES,
    EPSILON,
    LAYOUTS,
    assert_near,
    compute_epsilon,
    draw,
    leaf,
    penalty_orders,
    set_block,
    triton_under_guard,
)

from ganloss_fast import ops, reference
from ganloss_fast.triton_kernels import launchers


@pytest.fixture(autouse=True)
def under_guard():
    with triton_under_guard():
        yield


@pytest.fixture
def small_blocks(monkeypatch):
    """16 elements to a tile and at most 4 programs to a sum."""
    set_block(monkeypatch, 16, 4)


# Short rows (several to a program), rows of one program, rows of several: with tiles of 16.
BATCHES = [(1,), (5,), (7, 3), (40, 8), (3, 17), (2, 3, 5, 7), (1, 333), (0, 5), (4, 0)]


@pytest.mark.parametrize("mode", reference.PENALTY_MODES)
@pytest.mark.parametrize("shape", BATCHES, ids=str)
def test_the_penalty_to_second_order(small_blocks, shape, mode):
    g = leaf(draw(*shape))
    ours = penalty_orders(ops.gradient_penalty_loss, g, mode)
    truth = penalty_orders(reference.gradient_penalty_loss, leaf(g.double()), mode)
    for actual, expected in zip(ours, truth):
        assert_near(actual, expected, 2e-5)  # float32: 2 - 2 target / norm cancels


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(3, 5), (2, 5000), (2, 3, 31, 29)], ids=str)
def test_the_penalty_in_every_dtype(shape, dtype):
    g = leaf(draw(*shape, dtype=dtype))
    penalty, norms, first, second = penalty_orders(ops.gradient_penalty_loss, g, "two_sided")
    truth = penalty_orders(reference.gradient_penalty_loss, leaf(g.double()), "two_sided")
    assert_near(penalty, truth[0], 20 * compute_epsilon(dtype))
    assert_near(norms, truth[1], 8 * compute_epsilon(dtype))
    for actual, expected in ((first, truth[2]), (second, truth[3])):
        assert actual.dtype == dtype
        assert_near(actual, expected, 40 * compute_epsilon(dtype) + 2 * EPSILON[dtype])


def test_a_sample_with_norm_zero_has_no_gradient_of_any_order(small_blocks):
    g = leaf(torch.cat([torch.zeros(1, 33), draw(2, 33)]))
    _, norms, first, second = penalty_orders(ops.gradient_penalty_loss, g, "two_sided")
    assert norms[0] == 0
    assert not first[0].any()
    assert not second[0].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("of_g", LAYOUTS)
def test_a_gradient_of_any_layout_is_penalised(small_blocks, of_g, dtype):
    g = leaf(LAYOUTS[of_g](draw(3, 4, 5, 2)).to(dtype))
    penalty, _, first, _ = penalty_orders(ops.gradient_penalty_loss, g, "two_sided")
    truth = penalty_orders(reference.gradient_penalty_loss, leaf(g.double()), "two_sided")
    assert_near(penalty, truth[0], 1e-5)
    assert_near(first, truth[2], 2 * EPSILON[dtype] + 1e-5)
    assert first.stride() == torch.empty_like(g).stride()


def test_norms_may_be_expanded_and_of_another_dtype(small_blocks):
    """A direct call of the op may pass what autograd never does."""
    g, grad_penalty = draw(3, 20), torch.tensor(0.5)
    norms = torch.ones((), dtype=torch.float64).expand(3)
    ours = launchers.gradient_penalty_loss_backward(grad_penalty, g, norms, 0, 0.5, 3.0)
    assert_near(ours, 0.5 * g.double(), 1e-6)  # 0.5 * 3 / 3 * (2 - 2 * 0.5 / 1) * g
    grad_grad, second = launchers.gradient_penalty_loss_double_backward(
        g, grad_penalty, g, norms, 0, 0.5, 3.0
    )
    squared = g.double().square().sum(1, keepdim=True)
    assert_near(grad_grad, squared.sum(), 1e-6)
    assert_near(second, 0.5 * (1 + squared) * g.double(), 1e-6)


ALPHAS = {
    "0-d": lambda shape: torch.rand((), dtype=torch.float64),
    "per sample": lambda shape: torch.rand(shape[0], dtype=torch.float64),
    "per element": lambda shape: torch.rand(shape, dtype=torch.float64),
}


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("shape", BATCHES, ids=str)
def test_interpolate_is_lerp(small_blocks, shape, alpha):
    real, fake, share = draw(*shape), draw(*shape), ALPHAS[alpha](shape)
    share = share.float()
    truth = reference.lerp(real.double(), fake.double(), share.double())
    assert_near(ops.interpolate(real, fake, share), truth, 1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_interpolate_is_exact_at_both_ends(dtype):
    real, fake = draw(4, 700, dtype=dtype), draw(4, 700, dtype=dtype)
    result = ops.interpolate(real, fake, torch.tensor([0.0, 1.0, 0.0, 1.0]))
    assert torch.equal(result[::2], fake[::2])
    assert torch.equal(result[1::2], real[1::2])


@pytest.mark.parametrize("of_fake", LAYOUTS)
@pytest.mark.parametrize("of_real", LAYOUTS)
@pytest.mark.parametrize("alpha", ["per sample", "per element"])
def test_interpolate_takes_any_two_layouts(small_blocks, of_real, of_fake, alpha):
    real, fake = LAYOUTS[of_real](draw(3, 4, 5, 2)), LAYOUTS[of_fake](draw(3, 4, 5, 2))
    share = ALPHAS[alpha](real.shape).float()
    result = ops.interpolate(real, fake, share)
    assert_near(result, reference.lerp(real.double(), fake.double(), share.double()), 1e-6)
    assert result.stride() == torch.empty_like(real).stride()


@pytest.mark.parametrize("alpha", ALPHAS)
def test_interpolate_passes_gradgradcheck(small_blocks, alpha):
    inputs = [leaf(draw(2, 5, dtype=torch.float64)) for _ in range(2)]
    inputs.append(leaf(ALPHAS[alpha]((2, 5))))
    assert torch.autograd.gradcheck(ops.interpolate, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(ops.interpolate, inputs, fast_mode=True)


@pytest.mark.parametrize("shape", [(3, 4), (2, 37)], ids=str)
def test_the_penalty_passes_gradgradcheck(small_blocks, shape):
    g = leaf(draw(*shape, dtype=torch.float64))

    def penalty(g):
        return ops.gradient_penalty_loss(g, "one_sided", 0.5, 3.0)[0]

    assert torch.autograd.gradcheck(penalty, g, fast_mode=True)
    assert torch.autograd.gradgradcheck(penalty, g, fast_mode=True)
