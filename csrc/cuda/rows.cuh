// The kernels of interpolate and norm_penalty: a batch is rows, a sample is a row.
//
// Both kinds, a sum over every row and an elementwise pass with factors of the row, come for
//   wide rows:    a block for a row, or several blocks for the pieces of a row;
//   narrow rows:  1 to 32 neighbouring lanes for a row.
// So one sample of 3 x 1024 x 1024 fills the device, and 65 536 tiny samples do too. No atomics
// on floats: sums are bitwise reproducible.
#pragma once

#include "../math/interpolation.h"
#include "../math/penalty.h"
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

// x = y = gradient: writes the norms and sums the penalties.
template <typename T>
struct PenaltyOfNorm {
  math::NormPenalty<T> penalty;
  T* norms;  // [rows]

  __device__ __forceinline__ T finish(int64_t row, T squared_norm) const {
    const T norm = math::square_root(squared_norm);
    norms[row] = norm;
    return penalty.value(norm);
  }
};

// x = gradient, y = direction: keeps the dots and sums  coefficient * <g, v>.
template <typename T>
struct PenaltyAlongDirection {
  math::NormPenalty<T> penalty;
  const T* norms;  // [rows]
  T* dots;         // [rows]

  __device__ __forceinline__ T finish(int64_t row, T dot) const {
    dots[row] = dot;
    return penalty.coefficient(norms[row]) * dot;
  }
};

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
        load_tile(left, tile, a);
        if (y != nullptr) {
          load_tile(right, tile, b);
        } else {
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

// out = c g  with c the derivative of the penalty of the row.
template <typename T>
struct PenaltyGradient {
  static constexpr bool kHasY = false, kHasWeight = false;
  math::NormPenalty<T> penalty;
  const T* grad_penalty;  // []
  const T* norms;         // [rows]
  T scale;                // of one sample: scale / rows

  __device__ __forceinline__ T factors(int64_t row) const {
    return *grad_penalty * scale * penalty.coefficient(norms[row]);
  }
  __device__ __forceinline__ static T apply(T factor, T g, T, T) { return factor * g; }
};

// out = c v + t <u, v> u with u = g / n: the second derivative of the penalty, applied to v.
template <typename T>
struct PenaltyCurvature {
  static constexpr bool kHasY = true, kHasWeight = false;
  math::NormPenalty<T> penalty;
  const T* grad_penalty;  // []
  const T* norms;         // [rows]
  const T* dots;          // [rows]
  T scale;

  struct Factors {
    T along_v, along_g;
  };
  __device__ __forceinline__ Factors factors(int64_t row) const {
    const T norm = norms[row], inverse = penalty.inverse(norm);
    const T incoming = *grad_penalty * scale;
    return {incoming * penalty.coefficient(norm),
            incoming * penalty.twist(norm) * (dots[row] * inverse) * inverse};
  }
  __device__ __forceinline__ static T apply(Factors factors, T v, T g, T) {
    return factors.along_v * v + factors.along_g * g;
  }
};

// out = fake + alpha (real - fake), alpha of the row.
template <typename T>
struct InterpolateRows {
  static constexpr bool kHasY = true, kHasWeight = false;
  const T* alpha;  // [rows]

  __device__ __forceinline__ T factors(int64_t row) const { return alpha[row]; }
  __device__ __forceinline__ static T apply(T alpha, T fake, T real, T) {
    return math::interpolate(fake, real, alpha);
  }
};

// The same with an alpha for every element.
template <typename T>
struct InterpolateElements {
  static constexpr bool kHasY = true, kHasWeight = true;

  __device__ __forceinline__ T factors(int64_t) const { return T(0); }
  __device__ __forceinline__ static T apply(T, T fake, T real, T alpha) {
    return math::interpolate(fake, real, alpha);
  }
};

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
        load_tile(from_x + piece.first, tile, a);
        if constexpr (Pass::kHasY)
          load_tile(static_cast<const storage_t*>(y) + piece.first, tile, b);
        if constexpr (Pass::kHasWeight) load_tile_beside<storage_t>(w + piece.first, tile, c);
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

}  // namespace ganloss::cuda
