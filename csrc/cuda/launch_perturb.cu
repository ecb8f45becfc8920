// The launch of perturb: one thread for each group of elements, or for several.
#include <algorithm>

#include "perturb.cuh"

namespace ganloss::cuda {

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
