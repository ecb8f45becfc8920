// What the CUDA kernels offer to the ATen side. No torch: nvcc takes seconds for the .cu files,
// and the same files run on the CPU under tests/proofs/harness.
//
// Nothing here synchronises, allocates or reads device memory from the host, so every launch can
// be captured into a CUDA graph. A call brings its own workspace of device memory.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "../../math/dtype.h"
#include "../../math/penalty.h"
#include "../../math/terms.h"

namespace ganloss::cuda {

// What b is in  w * phi(a - b).
enum class OperandB : uint8_t { kNone, kTensor, kScalar };

// One segment of a multi-tensor loss. Device pointers; float64 segments stand alone in a call,
// the other dtypes may be mixed.
struct SegmentArguments {
  const void* a;       // [count]
  const void* b;       // [count], or [] in b_dtype, or null
  const void* weight;  // [count] in float (double for double), or null
  void* grad_a;        // [count] or null
  void* grad_b;        // [count], or [] in b_dtype, or null
  const void* va;      // [count] or null: 0.      Directions of the double backward
  const void* vb;      // [count], or [] in b_dtype, or null: 0
  int64_t count;
  math::TermSpec term;
  double scale;
  Dtype dtype;
  OperandB b_kind;
  Dtype b_dtype;
};

// The segments of one call, and the device they run on.
struct LossCall {
  const SegmentArguments* segments;  // [size], on the host
  int size;
  bool is_double;       // compute and loss type: double, else float
  int multiprocessors;  // of the device: blocks are sized to fill it
  void* workspace;      // loss_workspace_bytes(call)
  cudaStream_t stream;
};

int64_t loss_workspace_bytes(const LossCall& call);

// The outputs are of the loss type. statistics may be null.
void multi_tensor_loss(const LossCall& call,
                       void* total,        // []
                       void* values,       // [size]
                       void* statistics);  // [size, 4]

// Segments without grad_a and grad_b are passed over.
void multi_tensor_loss_backward(const LossCall& call,
                                const void* grad_total,    // [] in the loss type, or null
                                const void* grad_values);  // [size] in the loss type, or null

// grad_a and grad_b take the second-order gradients.
void multi_tensor_loss_double_backward(const LossCall& call, const void* grad_total,
                                       const void* grad_values,
                                       void* grad_grad_total,    // []
                                       void* grad_grad_values);  // [size]

// A batch of samples, each one block of memory, one after another.
struct BatchCall {
  int64_t rows;    // samples
  int64_t length;  // elements of a sample
  Dtype dtype;     // computed in float (double for double), here called T
  int multiprocessors;
  void* workspace;  // batch_workspace_bytes(call); the elementwise ops need none
  cudaStream_t stream;
};

int64_t batch_workspace_bytes(const BatchCall& call);

// out = fake + alpha (real - fake).
void interpolate(const BatchCall& call,
                 const void* fake,                    // [rows, length]
                 const void* real,                    // [rows, length]
                 const void* alpha,                   // T [rows], or [rows, length]
                 bool alpha_per_element, void* out);  // [rows, length]

// out = inputs + sigma * normal noise: the element with index i in the whole batch takes number i
// of math/philox.h, whatever the cut into rows.
void perturb(const BatchCall& call,
             const void* inputs,                 // [rows, length]
             double sigma, const int64_t* seed,  // []
             void* out);                         // [rows, length]

struct Penalty {
  math::PenaltyMode mode;
  double target;
  double scale;
};

void norm_penalty(const BatchCall& call, const Penalty& penalty,
                  const void* gradient,  // [rows, length]
                  void* result,          // T []
                  void* norms);          // T [rows]

void norm_penalty_backward(const BatchCall& call, const Penalty& penalty,
                           const void* grad_penalty,  // T []
                           const void* gradient,      // [rows, length]
                           const void* norms,         // T [rows]
                           void* out);                // [rows, length]

// Two launches: a sample's gradient needs <gradient, direction> over the whole sample first.
void norm_penalty_double_backward(const BatchCall& call, const Penalty& penalty,
                                  const void* direction,     // [rows, length]
                                  const void* grad_penalty,  // T []
                                  const void* gradient,      // [rows, length]
                                  const void* norms,         // T [rows]
                                  void* dots,                // T [rows], scratch
                                  void* grad_grad,           // T []
                                  void* out);                // [rows, length]

}  // namespace ganloss::cuda
