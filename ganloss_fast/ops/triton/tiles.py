"""Tiles of a run of elements: what the kernels read and write in.

Half and bfloat16 are upcast as they are read: arithmetic is float32, or float64 for float64.

Tiles that lie wholly inside a run are loaded and stored without a mask. A masked access is only
vectorised when the length is known to be a multiple of 16, which the lengths of users are not.
`is_whole` is the same for all threads: a branch on it costs no divergence.
"""

import triton
import triton.language as tl


@triton.jit
def first_tile():
    """The first tile of this program, in 64 bits: so are all offsets that are made from it."""
    return tl.program_id(0).to(tl.int64)


@triton.jit
def tile_count(count, BLOCK: tl.constexpr):
    """Tiles of a run. In 64 bits: just below 2^31 elements, rounding up would overflow."""
    return tl.cdiv(count.to(tl.int64), BLOCK)


@triton.jit
def offsets_of_tile(tile, BLOCK: tl.constexpr, NARROW: tl.constexpr):
    """[BLOCK], for memory that allows no wide access (NARROW) or does.

    A thread that may not load its 16 bytes at once would load them one element after another, and
    use a quarter of the sectors at a time. So neighbouring threads take neighbouring elements.
    """
    offsets = tile * BLOCK + tl.arange(0, BLOCK)
    if NARROW:
        offsets = tl.max_contiguous(offsets, 1)  # what a layout may count on
    return offsets


@triton.jit
def load_tile(pointer, offsets, count, is_whole, T: tl.constexpr):
    """The elements of a tile in the compute dtype; 0 behind the end."""
    if is_whole:
        x = tl.load(pointer + offsets)
    else:
        x = tl.load(pointer + offsets, mask=offsets < count, other=0.0)
    return x.to(T)


@triton.jit
def store_tile(pointer, x, offsets, count, is_whole):
    """Writes a tile in the dtype of the memory."""
    x = x.to(pointer.dtype.element_ty)
    if is_whole:
        tl.store(pointer + offsets, x)
    else:
        tl.store(pointer + offsets, x, mask=offsets < count)


@triton.jit
def only(x, offsets, count, is_whole):
    """x, and 0 behind the end: for sums."""
    if not is_whole:
        x = tl.where(offsets < count, x, 0.0)
    return x


@triton.jit
def as_scalar(number, T: tl.constexpr):
    """A float64 argument in the compute dtype. Unannotated, Triton would pass it as float32."""
    return tl.full((), number, T)
