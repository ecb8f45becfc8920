"""interpolate in Triton, in its interpreter under the guard."""

from __future__ import annotations

import pytest
import torch
import triton_guard

triton_guard.skip_module_without_interpreter()

import reference
from triton_interpreted import (
    BATCHES,
    DTYPES,
    LAYOUTS,
    assert_near,
    draw,
    leaf,
)

from ganloss_fast import ops

pytestmark = [pytest.mark.every_implementation, pytest.mark.usefixtures("under_guard")]


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
