// interpolate on CUDA: what a pass over rows computes. The kernels that run it are in rows.cuh.
#include "../../math/interpolation.h"
#include "rows.cuh"

namespace ganloss::cuda {

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

namespace {

template <typename T>
void interpolate_in(const BatchCall& call, const void* fake, const void* real, const void* alpha,
                    bool alpha_per_element, void* out) {
  if (alpha_per_element)
    launch_row_map<T>(call, InterpolateElements<T>{}, fake, real, alpha, out);
  else
    launch_row_map<T>(call, InterpolateRows<T>{static_cast<const T*>(alpha)}, fake, real, nullptr,
                      out);
}

}  // namespace

void interpolate(const BatchCall& call, const void* fake, const void* real, const void* alpha,
                 bool alpha_per_element, void* out) {
  (is_double(call) ? interpolate_in<double> : interpolate_in<float>)(call, fake, real, alpha,
                                                                     alpha_per_element, out);
}

}  // namespace ganloss::cuda
