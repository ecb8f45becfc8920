// Tiles: how a block reads and writes a run of elements.
//
// A tile is kThreads * kItems consecutive elements, kItems for each thread. A full tile at a
// 16-byte boundary moves as 16-byte words: neighbouring threads take neighbouring words. The
// rest (a head up to the boundary, the tail, a run whose operands are misaligned against each
// other) moves element by element: neighbouring threads take neighbouring elements.
// Offsets within a run are 32-bit, the run's first element is added to the pointer in 64-bit.
#pragma once

#include <cstdint>

#include "launch.h"
#include "platform.cuh"

namespace ganloss::cuda {

constexpr int kThreads = 256;
// Blocks that a multiprocessor holds at once: 1024 threads, each with one or two words of every
// operand under way. It leaves a thread 64 registers. Double, which is there for exactness and
// not for speed, may take twice as many.
constexpr int kBlocksPerMultiprocessor = 4;
template <typename T>
constexpr int kResidentBlocks = sizeof(T) == 8 ? 2 : kBlocksPerMultiprocessor;
constexpr int kWarp = 32;
constexpr int kWarps = kThreads / kWarp;
constexpr int kWordBytes = 16;

inline int64_t divide_up(int64_t x, int64_t y) {
  return (x + y - 1) / y;
}

template <typename storage_t>
inline constexpr int kLanes = kWordBytes / sizeof(storage_t);

template <typename storage_t>
struct alignas(kWordBytes) Word {
  storage_t lanes[kLanes<storage_t>];
};

// Between storage and compute type.
template <typename T>
__device__ __forceinline__ T to_compute(T x) {
  return x;
}
__device__ __forceinline__ float to_compute(__half x) {
  return __half2float(x);
}
__device__ __forceinline__ float to_compute(__nv_bfloat16 x) {
  return __bfloat162float(x);
}

template <typename storage_t, typename T>
__device__ __forceinline__ storage_t to_storage(T x) {
  if constexpr (sizeof(storage_t) != 2)
    return static_cast<storage_t>(x);
  else if constexpr (sizeof(T) == 8)
    return to_storage<storage_t>(static_cast<float>(x));
  else if constexpr (__is_same(storage_t, __half))
    return __float2half_rn(x);
  else
    return __float2bfloat16_rn(x);
}

template <typename storage_t, typename T>
__device__ __forceinline__ Word<storage_t> to_word(const T* items) {  // [kLanes<storage_t>]
  Word<storage_t> word;
#pragma unroll
  for (int lane = 0; lane < kLanes<storage_t>; ++lane)
    word.lanes[lane] = to_storage<storage_t>(items[lane]);
  return word;
}

// Calls visitor(storage_t{}) with the storage type of a dtype that is computed in T. The branch
// is the same for a whole block.
template <typename T, typename Visitor>
__device__ __forceinline__ void visit_storage(Dtype dtype, Visitor&& visitor) {
  if constexpr (sizeof(T) == 8) {
    visitor(double{});
  } else {
    switch (dtype) {
      case Dtype::kHalf:
        return visitor(__half{});
      case Dtype::kBFloat16:
        return visitor(__nv_bfloat16{});
      default:
        return visitor(float{});
    }
  }
}

// One element of any dtype: the 0-d operands, which may differ in dtype from the tensors.
template <typename T>
__device__ __forceinline__ T read_scalar(const void* from, Dtype dtype) {
  switch (dtype) {
    case Dtype::kDouble:
      return static_cast<T>(*static_cast<const double*>(from));
    case Dtype::kHalf:
      return to_compute(*static_cast<const __half*>(from));
    case Dtype::kBFloat16:
      return to_compute(*static_cast<const __nv_bfloat16*>(from));
    default:
      return *static_cast<const float*>(from);
  }
}
template <typename T>
__device__ __forceinline__ void write_scalar(void* to, Dtype dtype, T value) {
  switch (dtype) {
    case Dtype::kDouble:
      *static_cast<double*>(to) = value;
      break;
    case Dtype::kHalf:
      *static_cast<__half*>(to) = to_storage<__half>(value);
      break;
    case Dtype::kBFloat16:
      *static_cast<__nv_bfloat16*>(to) = to_storage<__nv_bfloat16>(value);
      break;
    default:
      *static_cast<float*>(to) = static_cast<float>(value);
  }
}

// One tile of a run.
struct Tile {
  int begin;       // offset of its first element within the run
  int count;       // elements in it
  bool has_words;  // full and at 16-byte boundaries

  // Whether this thread's item k is an element. A full tile has all of them.
  __device__ __forceinline__ bool has(int k) const {
    return has_words || k * kThreads + static_cast<int>(threadIdx.x) < count;
  }
};

// Calls body(tile) for the tiles of a run of `count` elements whose first 16-byte boundary, if
// it has any, is after `head` elements.
template <int kItems, typename Body>
__device__ __forceinline__ void for_each_tile(int count, int head, bool is_aligned, Body&& body) {
  constexpr int kTile = kThreads * kItems;
  int begin = 0;
  while (begin < count) {
    const int most = begin == 0 && head > 0 ? head : kTile;
    const int size = most < count - begin ? most : count - begin;
    body(Tile{begin, size, is_aligned && size == kTile});
    begin += size;
  }
}

// An operand of a tile on its way from memory to `items`, the items of this thread: requested first
// and converted later. Missing items are 0, and so are all of an operand that is not there.
template <typename storage_t, typename T, int kItems>
struct Operand {
  const storage_t* run;  // [elements of the run]
  T (&items)[kItems];
  bool is_there = true;
  static constexpr int kLane = kLanes<storage_t>;
  static_assert(kItems % kLane == 0);
  uint4 words[kItems / kLane] = {};  // whole, for taking one apart is a use of it
  storage_t elements[kItems] = {};

  __device__ __forceinline__ void request_words(const Tile& tile) {
    if (!is_there) return;
    const auto* from = reinterpret_cast<const uint4*>(run + tile.begin);
#pragma unroll
    for (int u = 0; u < kItems / kLane; ++u) words[u] = from[u * kThreads + threadIdx.x];
  }
  __device__ __forceinline__ void convert_words() {
#pragma unroll
    for (int u = 0; u < kItems / kLane; ++u) {
      Word<storage_t> word;
      __builtin_memcpy(&word, &words[u], kWordBytes);
#pragma unroll
      for (int lane = 0; lane < kLane; ++lane)
        items[u * kLane + lane] = to_compute(word.lanes[lane]);
    }
  }
  __device__ __forceinline__ void request_elements(const Tile& tile) {
    if (!is_there) return;
    const storage_t* from = run + tile.begin;
#pragma unroll
    for (int k = 0; k < kItems; ++k)
      if (tile.has(k)) elements[k] = from[k * kThreads + threadIdx.x];
  }
  __device__ __forceinline__ void convert_elements() {
#pragma unroll
    for (int k = 0; k < kItems; ++k) items[k] = to_compute(elements[k]);
  }
};
template <typename storage_t, typename T, int kItems>
Operand(const storage_t*, T (&)[kItems], bool = true) -> Operand<storage_t, T, kItems>;

// Loads the operands of a tile: all are requested before the first is converted, for a conversion
// waits until its item is there, and every request behind it would wait too.
template <typename... Operands>
__device__ __forceinline__ void load_tile(const Tile& tile, Operands... operands) {
  if (tile.has_words) {
    (operands.request_words(tile), ...);
    (operands.convert_words(), ...);
  } else {
    (operands.request_elements(tile), ...);
    (operands.convert_elements(), ...);
  }
}

template <typename storage_t, typename T, int kItems>
__device__ __forceinline__ void store_tile(storage_t* run,  // [elements of the run]
                                           const Tile& tile, const T (&items)[kItems]) {
  storage_t* to = run + tile.begin;
  if (tile.has_words) {
    constexpr int kLane = kLanes<storage_t>;
#pragma unroll
    for (int u = 0; u < kItems / kLane; ++u)
      reinterpret_cast<Word<storage_t>*>(to)[u * kThreads + threadIdx.x] =
          to_word<storage_t>(items + u * kLane);
  } else {
#pragma unroll
    for (int k = 0; k < kItems; ++k)
      if (tile.has(k)) to[k * kThreads + threadIdx.x] = to_storage<storage_t>(items[k]);
  }
}

// An operand in the compute type T that runs beside tensors of storage_t (weights, a map of alpha):
// item k is the element that an Operand of storage_t has for item k.
template <typename storage_t, typename T, int kItems>
struct OperandBeside {
  const T* run;  // [elements of the run]
  T (&items)[kItems];

  __device__ __forceinline__ void request_words(const Tile& tile) {
    constexpr int kLane = kLanes<storage_t>;
    constexpr int kPart = kLanes<T>;
#pragma unroll
    for (int k = 0; k < kItems; k += kPart) {
      const int element = ((k / kLane) * kThreads + threadIdx.x) * kLane + k % kLane;
      const Word<T> word = *reinterpret_cast<const Word<T>*>(run + tile.begin + element);
#pragma unroll
      for (int lane = 0; lane < kPart; ++lane) items[k + lane] = word.lanes[lane];
    }
  }
  __device__ __forceinline__ void request_elements(const Tile& tile) {
#pragma unroll
    for (int k = 0; k < kItems; ++k)
      items[k] = tile.has(k) ? run[tile.begin + k * kThreads + threadIdx.x] : T(0);
  }
  // What was requested is what is computed with.
  __device__ __forceinline__ void convert_words() {}
  __device__ __forceinline__ void convert_elements() {}
};
template <typename storage_t, typename T, int kItems>
__device__ __forceinline__ OperandBeside<storage_t, T, kItems> beside(const T* run,
                                                                      T (&items)[kItems]) {
  return {run, items};
}

}  // namespace ganloss::cuda
