"""perturb in Triton: x + sigma * normal noise, by the formulas of ``csrc/math/philox.h``."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ganloss_fast.ops.triton.checks import check_operand, check_seed
from ganloss_fast.ops.triton.layout import (
    BLOCK,
    COMPUTE_DTYPES,
    NUM_WARPS,
    program_count,
    restore_layout,
)
from ganloss_fast.ops.triton.terms import square_root
from ganloss_fast.ops.triton.tiles import as_scalar, first_tile, load_tile, store_tile, tile_count

# ---- kernels -------------------------------------------------------------------------------------


@triton.jit
def words_of_blocks(
    seed,  # int64
    blocks,  # [N] int64
):
    """Four tensors [N] uint32: the words of Philox4x32-10 under the seed."""
    zero = (blocks * 0).to(tl.uint32)
    return tl.philox(seed, blocks.to(tl.uint32), (blocks >> 32).to(tl.uint32), zero, zero)


@triton.jit
def uniform(word, T: tl.constexpr):
    """(word + 1/2) / 2^32, in (0, 1]."""
    return word.to(T) * 2.3283064365386963e-10 + 1.1641532182693481e-10


@triton.jit
def sine_cosine(turns):
    """Of a number of full turns in [0, 1]: the nearest quarter is taken off exactly.

    tl.sin and tl.cos would bring a path for huge arguments, which works in local memory.
    """
    # 2 pi is HIGH + LOW: rounded to one number it would cost half a unit in the last place.
    IS_DOUBLE: tl.constexpr = turns.dtype == tl.float64
    HIGH: tl.constexpr = 6.283185307179586 if IS_DOUBLE else 6.2831854820251465
    LOW: tl.constexpr = 2.4492935982947064e-16 if IS_DOUBLE else -1.7484556000744883e-07
    TERMS: tl.constexpr = 8 if IS_DOUBLE else 5
    quarter = (4.0 * turns + 0.5).to(tl.int32)
    rest = turns - 0.25 * quarter.to(turns.dtype)
    square = rest * rest * (HIGH * HIGH)
    s = tl.zeros_like(turns)  # sin(angle) / angle - 1
    c = tl.zeros_like(turns)  # cos(angle) - 1
    for n in tl.static_range(2 * TERMS, 0, -2):
        s = square * (-1.0 / (n * (n + 1))) * (s + 1.0)
        c = square * (-1.0 / (n * (n - 1))) * (c + 1.0)
    s = rest * HIGH + rest * (LOW + HIGH * s)
    c += 1.0
    is_odd = (quarter & 1) != 0
    sine = tl.where(is_odd, c, s)
    cosine = tl.where(is_odd, s, c)
    return (
        tl.where((quarter & 2) != 0, -sine, sine),
        tl.where(((quarter + 1) & 2) != 0, -cosine, cosine),
    )


@triton.jit
def normal_pair(first, second, T: tl.constexpr):
    """Two normals from two words (Box and Muller, 1958)."""
    radius = square_root(-2.0 * tl.log(uniform(first, T)))
    sine, cosine = sine_cosine(uniform(second, T))
    return radius * sine, radius * cosine


@triton.jit
def noise_of_tile(seed, tile, T: tl.constexpr, BLOCK: tl.constexpr):
    """The normals [BLOCK] of the elements of a tile: element i has word i % 4 of block i / 4."""
    blocks = tile * (BLOCK // 4) + tl.arange(0, BLOCK // 4)
    word_0, word_1, word_2, word_3 = words_of_blocks(seed, blocks)
    normal_0, normal_1 = normal_pair(word_0, word_1, T)
    normal_2, normal_3 = normal_pair(word_2, word_3, T)
    return tl.interleave(tl.interleave(normal_0, normal_2), tl.interleave(normal_1, normal_3))


@triton.jit(do_not_specialize=["count"])
def perturb_kernel(
    inputs,  # [count]
    seed,  # [] int64
    out,  # [count]
    count,
    sigma: tl.float64,
    T: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """out = inputs + sigma * noise."""
    key = tl.load(seed)
    deviation = as_scalar(sigma, T)
    for tile in range(first_tile(), tile_count(count, BLOCK), tl.num_programs(0)):
        offsets = tile * BLOCK + tl.arange(0, BLOCK)
        is_whole = tile < count // BLOCK
        result = load_tile(inputs, offsets, count, is_whole, T)
        result += deviation * noise_of_tile(key, tile, T, BLOCK)
        store_tile(out, result, offsets, count, is_whole)


# ---- launchers -----------------------------------------------------------------------------------


def perturb(inputs: Tensor, sigma: float, seed: Tensor) -> Tensor:
    """seed: one int64 element, which the kernel reads."""
    check_operand("inputs", inputs, inputs)
    check_seed(seed, inputs)
    x = inputs.resolve_neg().contiguous()  # noise follows the row-major index in any layout
    out = torch.empty_like(x)
    with torch.cuda.device_of(x):
        perturb_kernel[(program_count(x.numel()),)](
            x,
            seed,
            out,
            x.numel(),
            float(sigma),
            T=COMPUTE_DTYPES[x.dtype],
            BLOCK=BLOCK,
            num_warps=NUM_WARPS,
        )
    return restore_layout(out, x, inputs)
