// perturb on CUDA: x + sigma * normal noise, one block of noise for four elements, one thread for
// each group of elements, or for several.
#include <algorithm>

#include "../../math/philox.h"
#include "tile.cuh"

namespace ganloss::cuda {

// Elements that a thread takes at a time: whole blocks of noise and whole 16-byte words. Noise
// follows the index, so groups begin at multiples of it and there is no head: words serve where
// both operands begin at a 16-byte boundary.
constexpr int kNoiseBlock = 4;
template <typename storage_t>
inline constexpr int kGroup = kLanes<storage_t> > kNoiseBlock ? kLanes<storage_t> : kNoiseBlock;

// `count` is the number of elements, the others are missing and read as 0.
template <typename storage_t, typename T>
__device__ __forceinline__ void load_group(const storage_t* from,  // [count]
                                           int count, bool has_words,
                                           T (&items)[kGroup<storage_t>]) {
  constexpr int kItems = kGroup<storage_t>, kLane = kLanes<storage_t>;
  if (has_words && count == kItems) {
    Word<storage_t> words[kItems / kLane];
#pragma unroll
    for (int u = 0; u < kItems / kLane; ++u)
      words[u] = reinterpret_cast<const Word<storage_t>*>(from)[u];
#pragma unroll
    for (int k = 0; k < kItems; ++k) items[k] = to_compute(words[k / kLane].lanes[k % kLane]);
  } else {
#pragma unroll
    for (int k = 0; k < kItems; ++k) items[k] = k < count ? T(to_compute(from[k])) : T(0);
  }
}

template <typename storage_t, typename T>
__device__ __forceinline__ void store_group(storage_t* to,  // [count]
                                            int count, bool has_words,
                                            const T (&items)[kGroup<storage_t>]) {
  constexpr int kItems = kGroup<storage_t>, kLane = kLanes<storage_t>;
  if (has_words && count == kItems) {
#pragma unroll
    for (int u = 0; u < kItems / kLane; ++u) {
      const Word<storage_t> word = to_word<storage_t>(items + u * kLane);
      reinterpret_cast<Word<storage_t>*>(to)[u] = word;
    }
  } else {
#pragma unroll
    for (int k = 0; k < kItems; ++k)
      if (k < count) to[k] = to_storage<storage_t>(items[k]);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, kResidentBlocks<T>)
    perturb_kernel(const void* inputs,  // [count]
                   int64_t count, Dtype dtype, bool has_words, T sigma,
                   const int64_t* seed,  // []
                   void* out)            // [count]
{
  const auto key = static_cast<uint64_t>(*seed);
  visit_storage<T>(dtype, [&](auto storage) {
    using storage_t = decltype(storage);
    constexpr int kItems = kGroup<storage_t>;
    constexpr int kBlocks = kItems / kNoiseBlock;
    for (int64_t group = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
         group * kItems < count; group += static_cast<int64_t>(gridDim.x) * kThreads) {
      const int64_t first = group * kItems;
      const int items_left = static_cast<int>(count - first < kItems ? count - first : kItems);
      T items[kItems];
      load_group(static_cast<const storage_t*>(inputs) + first, items_left, has_words, items);
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
        T normals[kNoiseBlock];
        math::philox_normals(key, static_cast<uint64_t>(group * kBlocks + b), normals);
#pragma unroll
        for (int k = 0; k < kNoiseBlock; ++k) items[b * kNoiseBlock + k] += sigma * normals[k];
      }
      store_group(static_cast<storage_t*>(out) + first, items_left, has_words, items);
    }
  });
}

namespace {

template <typename T>
void perturb_in(const BatchCall& call, const void* inputs, double sigma, const int64_t* seed,
                void* out) {
  const int64_t count = call.rows * call.length;
  if (count == 0) return;
  const int group = sizeof(T) == 4 && call.dtype != Dtype::kFloat ? kGroup<__half> : kGroup<T>;
  const int64_t of_block = int64_t(kThreads) * group;
  const int64_t most = int64_t(kResidentBlocks<T>) * std::max(1, call.multiprocessors);
  const auto blocks = static_cast<unsigned>(std::min(most, (count + of_block - 1) / of_block));
  const auto is_word = [](const void* p) {
    return reinterpret_cast<uintptr_t>(p) % kWordBytes == 0;
  };
  GANLOSS_LAUNCH((perturb_kernel<T>), blocks, kThreads, call.stream, inputs, count, call.dtype,
                 is_word(inputs) && is_word(out), static_cast<T>(sigma), seed, out);
}

}  // namespace

void perturb(const BatchCall& call, const void* inputs, double sigma, const int64_t* seed,
             void* out) {
  (call.dtype == Dtype::kDouble ? perturb_in<double> : perturb_in<float>)(call, inputs, sigma, seed,
                                                                          out);
}

}  // namespace ganloss::cuda
