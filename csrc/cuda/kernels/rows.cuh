// Kernels over a batch, and their launches: a batch is rows, a sample is a row. What they compute
// is a parameter: see interpolate.cu and norm_penalty.cu.
//
// Both kinds, a sum over every row and an elementwise pass with factors of the row, come for
//   wide rows:    a block for a row, or several blocks for the pieces of a row;
//   narrow rows:  1 to 32 neighbouring lanes for a row.
// So one sample of 3 x 1024 x 1024 fills the device, and 65 536 tiny samples do too. No atomics
// on floats: sums are bitwise reproducible.
#pragma once

#include <algorithm>
#include <initializer_list>

#include "reduce.cuh"

namespace ganloss::cuda {

// A batch as the kernels take it.
struct Rows {
  int64_t rows;
  int64_t length;   // of a row, at most 2^31 - 1 for narrow ones
  int64_t pieces;   // of a wide row
  int piece;        // elements of a piece; the first one also holds the row's head
  int lanes;        // of a narrow row: a power of two
  bool is_aligned;  // the operands lie alike within 16-byte words
  bool has_words;   // and every narrow row begins and ends at a 16-byte boundary
  Dtype dtype;
};

template <typename T>
constexpr int kRowItems = 32 / sizeof(T);  // of a thread and tile

// A piece of a wide row.
struct Piece {
  int64_t first;  // element of the batch
  int count;
  int head;
};

template <typename storage_t>
__device__ __forceinline__ int head_of_row(const storage_t* row) {
  const int past = reinterpret_cast<uintptr_t>(row) % kWordBytes;
  return past == 0 ? 0 : (kWordBytes - past) / static_cast<int>(sizeof(storage_t));
}

template <typename storage_t>
__device__ __forceinline__ Piece piece_of_row(const Rows& batch, const storage_t* data, int64_t row,
                                              int64_t piece) {
  const int64_t first = row * batch.length;
  const int head = batch.is_aligned ? head_of_row(data + first) : 0;
  const int64_t end = head + (piece + 1) * batch.piece;
  const int64_t begin = piece == 0 ? 0 : end - batch.piece;
  // The last piece takes what is left: a head shifts the cuts, never their number.
  const int64_t limit = piece == batch.pieces - 1 ? batch.length : end;
  const int64_t count = (limit < batch.length ? limit : batch.length) - begin;
  return {first + begin, static_cast<int>(count), piece == 0 ? head : 0};
}

// ---- sums over rows --------------------------------------------------------------------------

// What happens to the sums q_i = <x_i, y_i> of the rows: finish(i, q_i) is called once for every
// row and returns what the row adds to the result.

// The last block adds what the blocks left and writes  result = factor * sum.
template <typename T, typename Finish>
__device__ __forceinline__ void finish_rows(const Rows& batch, const Finish& finish, T factor,
                                            T* result,          // []
                                            const T* partials,  // [blocks]
                                            bool partials_are_pieces) {
  T sums[1] = {};
  if (partials_are_pieces) {
    for (int64_t row = threadIdx.x / kWarp; row < batch.rows; row += kWarps) {
      const T q = sum_of_partials(partials, row * batch.pieces, (row + 1) * batch.pieces, 1);
      if (threadIdx.x % kWarp == 0) sums[0] += finish.finish(row, q);
    }
  } else {
    for (unsigned i = threadIdx.x; i < gridDim.x; i += kThreads) sums[0] += partials[i];
  }
  block_sum(sums);
  if (threadIdx.x == 0) *result = factor * sums[0];
}

template <typename T, typename Finish>
__global__ void __launch_bounds__(kThreads, kResidentBlocks<T>)
    wide_row_sum_kernel(const Rows batch, const Finish finish,
                        const void* x,  // [rows, length]
                        const void* y,  // [rows, length], or null: x
                        T factor,
                        T* result,         // []
                        T* partials,       // [blocks]
                        unsigned* ticket)  // [1], 0 on entry
{
  constexpr int kItems = kRowItems<T>;
  T of_block = 0;  // in thread 0: the sum of a piece, or of what whole rows add
  for (int64_t task = blockIdx.x; task < batch.rows * batch.pieces; task += gridDim.x) {
    const int64_t row = batch.pieces == 1 ? task : task / batch.pieces;
    T sums[1] = {};
    visit_storage<T>(batch.dtype, [&](auto storage) {
      using storage_t = decltype(storage);
      const auto* left = static_cast<const storage_t*>(x);
      const Piece piece = piece_of_row(batch, left, row, task - row * batch.pieces);
      left += piece.first;
      const auto* right = static_cast<const storage_t*>(y) + piece.first;
      for_each_tile<kItems>(piece.count, piece.head, batch.is_aligned, [&](const Tile& tile) {
        T a[kItems], b[kItems];
        if (y != nullptr) {
          load_tile(tile, Operand{left, a}, Operand{right, b});
        } else {
          load_tile(tile, Operand{left, a});
#pragma unroll
          for (int k = 0; k < kItems; ++k) b[k] = a[k];
        }
        T sum = 0;
#pragma unroll
        for (int k = 0; k < kItems; ++k) sum += a[k] * b[k];  // a missing item is 0
        sums[0] += sum;
      });
    });
    block_sum(sums);
    if (threadIdx.x == 0) of_block += batch.pieces == 1 ? finish.finish(row, sums[0]) : sums[0];
  }
  if (threadIdx.x == 0) partials[blockIdx.x] = of_block;
  if (!is_last_block(ticket)) return;
  finish_rows(batch, finish, factor, result, partials, batch.pieces > 1);
}

// The sum over the lanes of a narrow row, in each of them.
template <typename T>
__device__ __forceinline__ T lanes_sum(T x, int lanes) {
  for (int distance = lanes / 2; distance > 0; distance /= 2)
    x += __shfl_xor_sync(0xffffffffu, x, distance);
  return x;
}

template <typename T, typename Finish>
__global__ void __launch_bounds__(kThreads, kResidentBlocks<T>)
    narrow_row_sum_kernel(const Rows batch, const Finish finish,
                          const void* x,  // [rows, length]
                          const void* y,  // [rows, length], or null: x
                          T factor,
                          T* result,         // []
                          T* partials,       // [blocks]
                          unsigned* ticket)  // [1], 0 on entry
{
  const int lane = threadIdx.x & (batch.lanes - 1);
  const int rows_of_block = kThreads / batch.lanes;
  const int length = static_cast<int>(batch.length);
  T of_thread[1] = {};  // in lane 0 of a row: what its rows add
  // All lanes of a warp make the same rounds: the shuffles need every one of them.
  for (int64_t base = static_cast<int64_t>(blockIdx.x) * rows_of_block; base < batch.rows;
       base += static_cast<int64_t>(gridDim.x) * rows_of_block) {
    const int64_t row = base + threadIdx.x / batch.lanes;
    T sum = 0;
    if (row < batch.rows) {
      visit_storage<T>(batch.dtype, [&](auto storage) {
        using storage_t = decltype(storage);
        const auto* left = static_cast<const storage_t*>(x) + row * length;
        const auto* right = y == nullptr ? left : static_cast<const storage_t*>(y) + row * length;
        if (batch.has_words) {
          constexpr int kLane = kLanes<storage_t>;
          for (int i = lane; i < length / kLane; i += batch.lanes) {
            const auto a = reinterpret_cast<const Word<storage_t>*>(left)[i];
            const auto b = y == nullptr ? a : reinterpret_cast<const Word<storage_t>*>(right)[i];
#pragma unroll
            for (int k = 0; k < kLane; ++k)
              sum += T(to_compute(a.lanes[k])) * T(to_compute(b.lanes[k]));
          }
        } else {
#pragma unroll 4
          for (int i = lane; i < length; i += batch.lanes) {
            const T a = to_compute(left[i]);
            sum += a * (y == nullptr ? a : T(to_compute(right[i])));
          }
        }
      });
    }
    sum = lanes_sum(sum, batch.lanes);
    if (lane == 0 && row < batch.rows) of_thread[0] += finish.finish(row, sum);
  }
  block_sum(of_thread);
  if (threadIdx.x == 0) partials[blockIdx.x] = of_thread[0];
  if (!is_last_block(ticket)) return;
  finish_rows(batch, finish, factor, result, partials, false);
}

// ---- elementwise passes ----------------------------------------------------------------------

// A pass gives out = apply(factors(row), x, y, w) for every element; w is one more operand in T,
// for the pass that asks for it.

template <typename T, typename Pass>
__global__ void __launch_bounds__(kThreads, kResidentBlocks<T>)
    wide_row_map_kernel(const Rows batch, const Pass pass,
                        const void* x,  // [rows, length]
                        const void* y,  // [rows, length] or null
                        const T* w,     // [rows, length] or null
                        void* out)      // [rows, length]
{
  constexpr int kItems = kRowItems<T>;
  for (int64_t task = blockIdx.x; task < batch.rows * batch.pieces; task += gridDim.x) {
    const int64_t row = batch.pieces == 1 ? task : task / batch.pieces;
    const auto factors = pass.factors(row);
    visit_storage<T>(batch.dtype, [&](auto storage) {
      using storage_t = decltype(storage);
      const auto* from_x = static_cast<const storage_t*>(x);
      const Piece piece = piece_of_row(batch, from_x, row, task - row * batch.pieces);
      for_each_tile<kItems>(piece.count, piece.head, batch.is_aligned, [&](const Tile& tile) {
        T a[kItems], b[kItems] = {}, c[kItems] = {};
        const Operand of_x{from_x + piece.first, a};
        const Operand of_y{static_cast<const storage_t*>(y) + piece.first, b};
        if constexpr (Pass::kHasWeight)
          load_tile(tile, of_x, of_y, beside<storage_t>(w + piece.first, c));
        else if constexpr (Pass::kHasY)
          load_tile(tile, of_x, of_y);
        else
          load_tile(tile, of_x);
#pragma unroll
        for (int k = 0; k < kItems; ++k) a[k] = Pass::apply(factors, a[k], b[k], c[k]);
        store_tile(static_cast<storage_t*>(out) + piece.first, tile, a);
      });
    });
  }
}

template <typename T, typename Pass>
__global__ void __launch_bounds__(kThreads, kResidentBlocks<T>)
    narrow_row_map_kernel(const Rows batch, const Pass pass,
                          const void* x,  // [rows, length]
                          const void* y,  // [rows, length] or null
                          void* out)      // [rows, length]
{
  const int lane = threadIdx.x & (batch.lanes - 1);
  const int rows_of_block = kThreads / batch.lanes;
  const int length = static_cast<int>(batch.length);
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * rows_of_block + threadIdx.x / batch.lanes;
       row < batch.rows; row += static_cast<int64_t>(gridDim.x) * rows_of_block) {
    const auto factors = pass.factors(row);
    visit_storage<T>(batch.dtype, [&](auto storage) {
      using storage_t = decltype(storage);
      const int64_t first = row * length;
      const auto* from_x = static_cast<const storage_t*>(x) + first;
      const auto* from_y = Pass::kHasY ? static_cast<const storage_t*>(y) + first : from_x;
      auto* to = static_cast<storage_t*>(out) + first;
      if (batch.has_words) {
        using Words = Word<storage_t>;
        constexpr int kLane = kLanes<storage_t>;
        for (int i = lane; i < length / kLane; i += batch.lanes) {
          const auto a = reinterpret_cast<const Words*>(from_x)[i];
          const auto b = Pass::kHasY ? reinterpret_cast<const Words*>(from_y)[i] : Words{};
          Words result;
#pragma unroll
          for (int k = 0; k < kLane; ++k)
            result.lanes[k] = to_storage<storage_t>(
                Pass::apply(factors, T(to_compute(a.lanes[k])), T(to_compute(b.lanes[k])), T(0)));
          reinterpret_cast<Words*>(to)[i] = result;
        }
      } else {
#pragma unroll 2
        for (int i = lane; i < length; i += batch.lanes)
          to[i] = to_storage<storage_t>(
              Pass::apply(factors, T(to_compute(from_x[i])), T(to_compute(from_y[i])), T(0)));
      }
    });
  }
}

// ---- launches --------------------------------------------------------------------------------

// From this many elements on a row is worth a block; below, a few lanes serve it as well, unless
// there are so few rows that the device would idle.
constexpr int64_t kWideRow = 2048;
constexpr int64_t kWideRowOfFew = kThreads;

constexpr int64_t kMostOfPiece = int64_t(1) << 30;  // offsets within a piece are 32-bit

inline int64_t target_blocks(const BatchCall& call) {
  return int64_t(kBlocksPerMultiprocessor) * std::max(1, call.multiprocessors);
}

inline bool is_wide(const BatchCall& call) {
  return call.length >= (call.rows <= target_blocks(call) ? kWideRowOfFew : kWideRow);
}

// How the operands lie in memory. `beside` is an operand in the compute type, or null.
struct Alignment {
  Alignment(const BatchCall& call, std::initializer_list<const void*> operands,
            const void* beside = nullptr) {
    const int64_t size = bytes_of(call.dtype);
    const auto past = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % kWordBytes; };
    const uintptr_t first = past(*operands.begin());
    is_aligned = true;
    for (const void* operand : operands) is_aligned &= !operand || past(operand) == first;
    if (beside) {
      const int64_t head = first == 0 ? 0 : (kWordBytes - first) / size;
      const int64_t width = size == 8 ? 8 : 4;
      // Rows keep the phase of one another only where a word holds as many of both.
      is_aligned &= past(static_cast<const char*>(beside) + head * width) == 0 && call.rows == 1;
    }
    has_words = is_aligned && first == 0 && call.length * size % kWordBytes == 0;
  }
  bool is_aligned;
  bool has_words;
};

template <typename T>
Rows rows_of(const BatchCall& call, const Alignment& alignment) {
  Rows batch{call.rows,           call.length, 1, 0, kWarp, alignment.is_aligned,
             alignment.has_words, call.dtype};
  if (is_wide(call)) {
    constexpr int64_t kTile = int64_t(kThreads) * kRowItems<T>;
    // Pieces only where rows alone would leave multiprocessors idle, or a row is very long; no more
    // than fit at once, for a few blocks left over take as long as all of them.
    const int64_t wanted =
        std::max<int64_t>(1, target_blocks(call) / std::max<int64_t>(1, call.rows));
    const int64_t piece = divide_up(divide_up(call.length, wanted), kTile) * kTile;
    batch.piece = static_cast<int>(std::min(piece, kMostOfPiece));
    batch.pieces = divide_up(call.length, batch.piece);
  } else {
    const int64_t steps =
        alignment.has_words ? call.length * bytes_of(call.dtype) / kWordBytes : call.length;
    batch.lanes = 1;
    while (batch.lanes < kWarp && batch.lanes < steps) batch.lanes *= 2;
  }
  return batch;
}

// Blocks of a launch. Pieces of one row have a block each; whole rows share the device.
inline int64_t blocks_of(const BatchCall& call, const Rows& batch) {
  if (!is_wide(call))
    return std::clamp<int64_t>(divide_up(call.rows, kThreads / batch.lanes), 1,
                               2 * target_blocks(call));
  if (batch.pieces > 1) return std::max<int64_t>(1, call.rows * batch.pieces);
  return std::clamp<int64_t>(call.rows, 1, target_blocks(call));
}

template <typename T, typename Finish>
void launch_row_sum(const BatchCall& call, const Finish& finish, const void* x, const void* y,
                    T factor, void* result) {
  const Rows batch = rows_of<T>(call, Alignment(call, {x, y}));
  const auto blocks = static_cast<unsigned>(blocks_of(call, batch));
  auto* partials = static_cast<T*>(call.workspace);
  if (x == y) y = nullptr;  // so that it is read once
  if (is_wide(call))
    GANLOSS_LAUNCH((wide_row_sum_kernel<T, Finish>), blocks, kThreads, call.stream, batch, finish,
                   x, y, factor, static_cast<T*>(result), partials, call.ticket);
  else
    GANLOSS_LAUNCH((narrow_row_sum_kernel<T, Finish>), blocks, kThreads, call.stream, batch, finish,
                   x, y, factor, static_cast<T*>(result), partials, call.ticket);
}

template <typename T, typename Pass>
void launch_row_map(const BatchCall& call, const Pass& pass, const void* x, const void* y,
                    const void* w, void* out) {
  if (call.rows == 0 || call.length == 0) return;
  const Rows batch = rows_of<T>(call, Alignment(call, {x, y, out}, w));
  const auto blocks = static_cast<unsigned>(blocks_of(call, batch));
  if constexpr (!Pass::kHasWeight) {
    if (!is_wide(call)) {
      GANLOSS_LAUNCH((narrow_row_map_kernel<T, Pass>), blocks, kThreads, call.stream, batch, pass,
                     x, y, out);
      return;
    }
  }
  GANLOSS_LAUNCH((wide_row_map_kernel<T, Pass>), blocks, kThreads, call.stream, batch, pass, x, y,
                 static_cast<const T*>(w), out);
}

inline bool is_double(const BatchCall& call) {
  return call.dtype == Dtype::kDouble;
}

}  // namespace ganloss::cuda
