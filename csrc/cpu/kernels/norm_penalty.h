// The kernels of norm_penalty over rows: the penalty itself is a formula of <x, x> and <x, y>.
#pragma once

#include "spans.h"

namespace {

using ganloss::cpu::Rows;

void dots(Dtype dtype, const void* x, const void* y, double* out, const Rows& rows) {
  visit_dtype(dtype, [&](auto storage) {
    using storage_t = decltype(storage);
    using T = typename Compute<storage_t>::scalar;
    auto* left = static_cast<const storage_t*>(x);
    auto* right = static_cast<const storage_t*>(y);
    for (int64_t row = 0; row < rows.count; ++row) {
      Accumulator<T> sum;
      for_each_vector<T, Tail::kOverlap>(
          rows.length,
          [&](int64_t i, auto lanes, int u) {
            sum.add(u, only(read(left + i, lanes) * read(right + i, lanes), lanes));
          },
          [&] { sum.end_block(); });
      out[row] = sum.total();
      left += rows.length, right += rows.length;
    }
  });
}

void combine(Dtype dtype, const void* x, const double* x_scale, const void* y,
             const double* y_scale, void* out, const Rows& rows) {
  visit_dtype(dtype, [&](auto storage) {
    using storage_t = decltype(storage);
    using T = typename Compute<storage_t>::scalar;
    auto* left = static_cast<const storage_t*>(x);
    auto* right = static_cast<const storage_t*>(y);
    auto* to = static_cast<storage_t*>(out);
    for (int64_t row = 0; row < rows.count; ++row) {
      const Vector<T> left_scale = T(x_scale[row]), right_scale = T(right ? y_scale[row] : 0.0);
      for_each_vector<T, Tail::kOverlap>(
          rows.length,
          [&](int64_t i, auto lanes, int) {
            Vector<T> result = left_scale * read(left + i, lanes);
            if (right) result = result + right_scale * read(right + i, lanes);
            write(to + i, result, lanes);
          },
          [] {});
      left += rows.length, to += rows.length;
      if (right) right += rows.length;
    }
  });
}

}  // namespace
