// The kernel of interpolate over one span.
#pragma once

#include "spans.h"

#include "../../math/interpolation.h"

namespace {

void interpolate(Dtype dtype, const void* real, const void* fake, const void* alpha,
                 double alpha_scalar, void* out, int64_t count) {
  visit_dtype(dtype, [&](auto storage) {
    using storage_t = decltype(storage);
    using T = typename Compute<storage_t>::scalar;
    using V = Vector<T>;
    auto* r = static_cast<const storage_t*>(real);
    auto* f = static_cast<const storage_t*>(fake);
    auto* weights = static_cast<const T*>(alpha);
    auto* to = static_cast<storage_t*>(out);
    const V constant = T(alpha_scalar);
    for_each_vector<T>(
        count,
        [&](int64_t i, auto lanes, int) {
          V weight = weights ? read(weights + i, lanes) : constant;
          V from = read(f + i, lanes), towards = read(r + i, lanes);
          write(to + i, ganloss::math::interpolate(from, towards, weight), lanes);
        },
        [] {});
  });
}

}  // namespace
