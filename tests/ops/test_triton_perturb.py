"""perturb in Triton, in its interpreter under the guard: what test_perturb.py cannot reach."""

from __future__ import annotations

import pytest
import torch
import triton_guard

triton_guard.skip_module_without_interpreter()

import triton
import triton.language as tl
from triton_interpreted import DTYPES, draw, leaf, set_block

from ganloss_fast import backends, ops
from ganloss_fast.ops.perturb import normals_of_blocks
from ganloss_fast.ops.perturb import words_of_blocks as reference_words
from ganloss_fast.ops.triton import launchers
from ganloss_fast.ops.triton.perturb import noise_of_tile, words_of_blocks

SEED = torch.tensor(-1234567890123456789)


pytestmark = [pytest.mark.every_implementation, pytest.mark.usefixtures("under_guard")]


@triton.jit
def words_kernel(blocks, seed, out, BLOCK: tl.constexpr):
    index = tl.arange(0, BLOCK)
    words = words_of_blocks(tl.load(seed), tl.load(blocks + index))
    for k in tl.static_range(4):
        tl.store(out + 4 * index + k, words[k].to(tl.int64))


@pytest.mark.parametrize("seed", [0, 1, -1, 2**62 + 12345, -(2**63)])
def test_words_are_those_of_the_reference_to_the_bit(seed):
    """Also where the number of a block is more than 32 bits: the reference's are the published."""
    blocks = torch.tensor([0, 1, 2, 3, 2**32 - 1, 2**32, 2**32 + 1, 2**61 + 5])
    out = torch.empty(8, 4, dtype=torch.int64)
    words_kernel[(1,)](blocks, torch.tensor(seed), out, BLOCK=8)
    assert torch.equal(out, reference_words(torch.tensor(seed), blocks))


@triton.jit
def noise_kernel(tile, seed, out, BLOCK: tl.constexpr):
    noise = noise_of_tile(tl.load(seed), tl.load(tile), tl.float64, BLOCK)
    tl.store(out + tl.arange(0, BLOCK), noise)


def test_a_tile_beyond_2_to_the_34_elements_has_its_own_noise():
    tile = 2**30 + 7
    out = torch.empty(16, dtype=torch.float64)
    noise_kernel[(1,)](torch.tensor(tile), SEED, out, BLOCK=16)
    expected = normals_of_blocks(SEED, 4 * tile + torch.arange(4), torch.float64)
    torch.testing.assert_close(out, expected.flatten(), rtol=1e-14, atol=0.0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("count", [1, 15, 16, 17, 63, 64, 65, 130])
def test_the_cut_into_tiles_and_programs_changes_nothing(monkeypatch, count, dtype):
    x = draw(count, dtype=dtype)
    whole = ops.perturb(x, 0.5, SEED)
    set_block(monkeypatch, 16, 3)
    for order in (1, 2):
        with triton_guard.guarded(order):
            assert torch.equal(ops.perturb(x, 0.5, SEED), whole)


@pytest.mark.filterwarnings("ignore:.*verriding a previously registered kernel")
def test_the_c_plus_plus_autograd_runs_on_the_launcher(monkeypatch):
    if not backends.HAS_NATIVE:
        pytest.skip(f"no extension: {backends.NATIVE_MISSING}")
    expected = ops.perturb(draw(37), 0.5, SEED)
    called = []
    original = launchers.perturb
    monkeypatch.setattr(
        launchers, "perturb", lambda *arguments: called.append(1) or original(*arguments)
    )
    torch.manual_seed(0)
    x = leaf(draw(37))
    library = ops.register_launchers("cpu")
    try:
        with backends.use_backend("native"):
            moved = ops.perturb(x, 0.5, SEED)
    finally:
        library._destroy()
    assert called
    assert torch.equal(moved, expected)
    assert torch.equal(torch.autograd.grad(moved.sum(), x)[0], torch.ones(37))


def test_the_launcher_refuses_what_would_leave_a_tensor():
    x = draw(8)
    with pytest.raises(TypeError, match="inputs: expected float16"):
        launchers.perturb(x.int(), 1.0, SEED)
    with pytest.raises(TypeError, match=r"seed: expected dtype torch\.int64"):
        launchers.perturb(x, 1.0, torch.tensor(1.0))
    with pytest.raises(ValueError, match="seed: expected one element"):
        launchers.perturb(x, 1.0, torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="seed: expected device cpu"):
        launchers.perturb(x, 1.0, SEED.to("meta"))
