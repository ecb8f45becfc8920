// norm_penalty on CUDA: what its sums over rows and its passes over rows compute. The kernels that
// run them are in rows.cuh.
#include "../../math/penalty.h"
#include "rows.cuh"

namespace ganloss::cuda {

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

namespace {

template <typename T>
math::NormPenalty<T> as_norm_penalty(const Penalty& penalty) {
  return {penalty.mode, static_cast<T>(penalty.target)};
}

// The factor of one sample; of an empty batch infinite, so that its mean is NaN.
template <typename T>
T scale_of_sample(const BatchCall& call, const Penalty& penalty) {
  return static_cast<T>(penalty.scale / static_cast<double>(call.rows));
}

template <typename T>
void forward(const BatchCall& call, const Penalty& penalty, const void* gradient, void* result,
             void* norms) {
  const PenaltyOfNorm<T> finish{as_norm_penalty<T>(penalty), static_cast<T*>(norms)};
  launch_row_sum<T>(call, finish, gradient, gradient, scale_of_sample<T>(call, penalty), result);
}

template <typename T>
void backward(const BatchCall& call, const Penalty& penalty, const void* grad_penalty,
              const void* gradient, const void* norms, void* out) {
  const PenaltyGradient<T> pass{as_norm_penalty<T>(penalty), static_cast<const T*>(grad_penalty),
                                static_cast<const T*>(norms), scale_of_sample<T>(call, penalty)};
  launch_row_map<T>(call, pass, gradient, nullptr, nullptr, out);
}

template <typename T>
void double_backward(const BatchCall& call, const Penalty& penalty, const void* direction,
                     const void* grad_penalty, const void* gradient, const void* norms, void* dots,
                     void* grad_grad, void* out) {
  const T scale = scale_of_sample<T>(call, penalty);
  const PenaltyAlongDirection<T> finish{as_norm_penalty<T>(penalty), static_cast<const T*>(norms),
                                        static_cast<T*>(dots)};
  launch_row_sum<T>(call, finish, gradient, direction, scale, grad_grad);
  const PenaltyCurvature<T> pass{as_norm_penalty<T>(penalty), static_cast<const T*>(grad_penalty),
                                 static_cast<const T*>(norms), static_cast<const T*>(dots), scale};
  launch_row_map<T>(call, pass, direction, gradient, nullptr, out);
}

}  // namespace

int64_t batch_workspace_bytes(const BatchCall& call) {
  // Pieces have a block each; every other launch has at most 2 * target_blocks.
  const Alignment any(call, {nullptr});
  const Rows batch = is_double(call) ? rows_of<double>(call, any) : rows_of<float>(call, any);
  const int64_t blocks = std::max(call.rows * batch.pieces, 2 * target_blocks(call));
  return blocks * (is_double(call) ? 8 : 4);
}

void norm_penalty(const BatchCall& call, const Penalty& penalty, const void* gradient, void* result,
                  void* norms) {
  (is_double(call) ? forward<double> : forward<float>)(call, penalty, gradient, result, norms);
}

void norm_penalty_backward(const BatchCall& call, const Penalty& penalty, const void* grad_penalty,
                           const void* gradient, const void* norms, void* out) {
  (is_double(call) ? backward<double> : backward<float>)(call, penalty, grad_penalty, gradient,
                                                         norms, out);
}

void norm_penalty_double_backward(const BatchCall& call, const Penalty& penalty,
                                  const void* direction, const void* grad_penalty,
                                  const void* gradient, const void* norms, void* dots,
                                  void* grad_grad, void* out) {
  (is_double(call) ? double_backward<double> : double_backward<float>)(call, penalty, direction,
                                                                       grad_penalty, gradient,
                                                                       norms, dots, grad_grad, out);
}

}  // namespace ganloss::cuda
