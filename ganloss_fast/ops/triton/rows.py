"""Rows of a batch: what the kernels of norm_penalty and interpolate share.

A batch is rows: [batch, length], each row one block of memory. A long row (ROWS == 1) is cut into
`splits` parts, each a run of tiles of COLUMNS elements that one program takes in strides. Short
rows (up to COLUMNS elements) are summed ROWS at a time by one program; kernels that sum nothing
take them end to end, in tiles of COLUMNS.

The tiles of a long row start at a multiple of 16 elements and not at the row itself, so that the
tiles in the middle are loaded 16 bytes at a time for every length; the first and the last are
masked. Tiles end to end are aligned as they are. Sums of short rows of odd length are left with
narrow loads, which neighbouring threads share sectors of.
"""

import triton
import triton.language as tl


@triton.jit
def long_row(splits, length, COLUMNS: tl.constexpr):
    """(row, split, first element of its tiles, number of tiles) of this program."""
    program = tl.program_id(0)
    row = (program // splits).to(tl.int64)
    start = row * length
    base = start // 16 * 16
    return row, program % splits, base, tl.cdiv(start + length - base, COLUMNS)


@triton.jit
def rows_end_to_end(tile, batch, length, BLOCK: tl.constexpr):
    """(offsets [BLOCK] of a tile, the row of each, the end of the batch, whether it is whole)."""
    start = tile * BLOCK
    first = start // length
    # In 32 bits: a division in 64 takes several times as long.
    within = (start - first * length).to(tl.int32) + tl.arange(0, BLOCK)
    end = batch.to(tl.int64) * length
    return start + tl.arange(0, BLOCK), first + within // length, end, start + BLOCK <= end


@triton.jit
def load_part(pointer, offsets, begin, end, is_whole, T: tl.constexpr):
    """Elements in the compute dtype; 0 for those that are not in [begin, end)."""
    if is_whole:
        x = tl.load(pointer + offsets)
    else:
        inside = (offsets >= begin) & (offsets < end)
        x = tl.load(pointer + offsets, mask=inside, other=0.0)
    return x.to(T)


@triton.jit
def store_part(pointer, x, offsets, begin, end, is_whole):
    """Writes elements in the dtype of the memory."""
    x = x.to(pointer.dtype.element_ty)
    if is_whole:
        tl.store(pointer + offsets, x)
    else:
        tl.store(pointer + offsets, x, mask=(offsets >= begin) & (offsets < end))
