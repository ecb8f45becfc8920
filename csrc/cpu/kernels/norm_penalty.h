// The kernels of norm_penalty over one span: the penalty itself is a formula of <x, x> and <x, y>.
#pragma once

#include "spans.h"

namespace {

double dot(Dtype dtype, const void* x, const void* y, int64_t count) {
  return visit_dtype(dtype, [&](auto storage) {
    using storage_t = decltype(storage);
    using T = typename Compute<storage_t>::scalar;
    auto* left = static_cast<const storage_t*>(x);
    auto* right = static_cast<const storage_t*>(y);
    Accumulator<T> sum;
    for_each_vector<T>(
        count,
        [&](int64_t i, auto lanes, int u) {
          sum.add(u, read(left + i, lanes) * read(right + i, lanes));
        },
        [&] { sum.end_block(); });
    return sum.total();
  });
}

void combine(Dtype dtype, const void* x, double x_scale, const void* y, double y_scale, void* out,
             int64_t count) {
  visit_dtype(dtype, [&](auto storage) {
    using storage_t = decltype(storage);
    using T = typename Compute<storage_t>::scalar;
    auto* left = static_cast<const storage_t*>(x);
    auto* right = static_cast<const storage_t*>(y);
    auto* to = static_cast<storage_t*>(out);
    const Vector<T> left_scale = T(x_scale), right_scale = T(y_scale);
    for_each_vector<T>(
        count,
        [&](int64_t i, auto lanes, int) {
          Vector<T> result = left_scale * read(left + i, lanes);
          if (right) result = result + right_scale * read(right + i, lanes);
          write(to + i, result, lanes);
        },
        [] {});
  });
}

}  // namespace
