// The kernel of interpolate over rows.
#pragma once

#include "spans.h"

#include "../../math/interpolation.h"

namespace {

using ganloss::cpu::Rows;

void interpolate(Dtype dtype, const void* real, const void* fake, const void* alpha,
                 const double* alpha_of_row, void* out, const Rows& rows) {
  visit_dtype(dtype, [&](auto storage) {
    using storage_t = decltype(storage);
    using T = typename Compute<storage_t>::scalar;
    using V = Vector<T>;
    auto* r = static_cast<const storage_t*>(real);
    auto* f = static_cast<const storage_t*>(fake);
    auto* weights = static_cast<const T*>(alpha);
    auto* to = static_cast<storage_t*>(out);
    for (int64_t row = 0; row < rows.count; ++row) {
      const V constant = T(weights ? 0.0 : alpha_of_row[row]);
      for_each_vector<T, Tail::kOverlap>(
          rows.length,
          [&](int64_t i, auto lanes, int) {
            V weight = weights ? read(weights + i, lanes) : constant;
            V from = read(f + i, lanes), towards = read(r + i, lanes);
            write(to + i, ganloss::math::interpolate(from, towards, weight), lanes);
          },
          [] {});
      r += rows.length, f += rows.length, to += rows.length;
      if (weights) weights += rows.length;
    }
  });
}

}  // namespace
