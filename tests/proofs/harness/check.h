// What the torch-free check programs share: storage with exact bounds, numbers, comparison.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "cuda/kernels/launch.h"

namespace check {

using ganloss::bytes_of;
using ganloss::Dtype;

inline int failures = 0;

inline const char* name_of(Dtype dtype) {
  static const char* const names[] = {"float32", "float64", "float16", "bfloat16"};
  return names[static_cast<int>(dtype)];
}

// Relative spacing of the numbers of a dtype: the error that one rounding may make.
inline double epsilon_of(Dtype dtype) {
  static const double epsilons[] = {6e-8, 1.2e-16, 4.9e-4, 3.9e-3};
  return epsilons[static_cast<int>(dtype)];
}

// `count` elements that begin `offset` elements after a 16-byte boundary, in a block of exactly
// that size: AddressSanitizer sees one element too far on either end.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Dtype dtype, int64_t count, int64_t offset = 0) : dtype_(dtype), count_(count) {
    const size_t bytes = static_cast<size_t>((count + offset) * bytes_of(dtype));
    void* memory = nullptr;
    if (posix_memalign(&memory, 16, bytes ? bytes : 1)) std::abort();
    memory_.reset(static_cast<char*>(memory), std::free);
    data_ = memory_.get() + offset * bytes_of(dtype);
  }

  void* data() const { return data_; }
  int64_t count() const { return count_; }
  Dtype dtype() const { return dtype_; }

  double get(int64_t i) const {
    switch (dtype_) {
      case Dtype::kDouble:
        return static_cast<const double*>(data())[i];
      case Dtype::kHalf:
        return __half2float(static_cast<const __half*>(data())[i]);
      case Dtype::kBFloat16:
        return __bfloat162float(static_cast<const __nv_bfloat16*>(data())[i]);
      default:
        return static_cast<const float*>(data())[i];
    }
  }
  void set(int64_t i, double value) {
    switch (dtype_) {
      case Dtype::kDouble:
        static_cast<double*>(data())[i] = value;
        break;
      case Dtype::kHalf:
        static_cast<__half*>(data())[i] = __float2half_rn(static_cast<float>(value));
        break;
      case Dtype::kBFloat16:
        static_cast<__nv_bfloat16*>(data())[i] = __float2bfloat16_rn(static_cast<float>(value));
        break;
      default:
        static_cast<float*>(data())[i] = static_cast<float>(value);
    }
  }

  Buffer& fill(double value) {
    for (int64_t i = 0; i < count_; ++i) set(i, value);
    return *this;
  }
  Buffer& randomize(std::mt19937& random, double scale = 2.0) {
    std::normal_distribution<double> normal(0.0, scale);
    for (int64_t i = 0; i < count_; ++i) set(i, normal(random));
    return *this;
  }

 private:
  Dtype dtype_ = Dtype::kFloat;
  int64_t count_ = 0;
  std::shared_ptr<char> memory_;
  char* data_ = nullptr;
};

// Workspace as a caching allocator hands it out: with what somebody left in it.
inline Buffer dirty_workspace(int64_t bytes) {
  Buffer workspace(Dtype::kDouble, (bytes + 7) / 8);
  for (int64_t i = 0; i < workspace.count(); ++i) static_cast<double*>(workspace.data())[i] = 1e30;
  return workspace;
}

// The calls of a program follow one another, so they share a ticket: each must leave 0.
inline unsigned ticket = 0;

// |got - expected| <= tolerance * (|expected| + scale). NaN equals NaN only.
inline bool expect_close(const char* what, int64_t index, double got, double expected,
                         double tolerance, double scale) {
  const bool close = std::isnan(expected)
                         ? std::isnan(got)
                         : got == expected || std::fabs(got - expected) <=
                                                  tolerance * (std::fabs(expected) + scale);
  if (!close && ++failures <= 20)
    std::printf("WRONG %s[%ld]: got %.9g, expected %.9g\n", what, static_cast<long>(index), got,
                expected);
  return close;
}

inline int report() {
  std::printf(failures ? "%d wrong values\n" : "all right\n", failures);
  return failures ? 1 : 0;
}

}  // namespace check
