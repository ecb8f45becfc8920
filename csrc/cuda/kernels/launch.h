// The launchers of the CUDA kernels: all that a caller needs who has device memory and a stream.
//
// Nothing here knows torch. The ATen side is one caller; the programs of tests/proofs/harness,
// which run the same files on the CPU, are others. A tool of its own compiles the .cu files beside
// this one with  nvcc -std=c++20  and includes no other header:
//
//   LossCall call{segments, size, /*is_double=*/false, multiprocessors, stream};
//   call.cut = cut_of(call);
//   call.workspace = device_memory(call.cut.workspace_bytes);
//   call.ticket = zeroed_device_memory(sizeof(unsigned));
//   multi_tensor_loss(call, total, values, nullptr);
//
// Pointers are to device memory, but for `segments` and what is passed by reference: these are read
// before the launcher returns. A [count] or [rows, length] operand is that many elements one after
// another, at any address that is a multiple of an element: 16-byte words serve where all operands
// lie alike within them. Outputs overlap no input and are written in full; none needs to be
// initialised. Nothing is checked: a count below 0 or a wrong pointer does what it does.
//
// The kernels run on the current device, in the order of the stream. Nothing here synchronises,
// allocates or reads device memory from the host, so every launch can be captured into a CUDA
// graph. An error of a launch is left where CUDA keeps it: ask cudaGetLastError().
//
// A workspace is scratch: what lies in it on entry does not matter, and calls in one stream may
// share one. A ticket counts the blocks that have arrived: it is 0 on entry, and 0 again when the
// launch is over. So calls that follow one another may share one that was zeroed once; calls that
// may run at the same time, in two streams or in a graph and beside it, may not.
//
// Every sum is added in a fixed order, given by the sizes, by how the operands lie within 16-byte
// words, and by `multiprocessors`: the same call gives the same bits on one kind of device.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "../../math/dtype.h"
#include "../../math/penalty.h"
#include "../../math/terms.h"

namespace ganloss::cuda {

// What b is in  w * phi(a - b).
enum class OperandB : uint8_t { kNone, kTensor, kScalar };

// One segment of a multi-tensor loss:  mean( weight * phi(a - b) ), and 0 where a weight is 0.
//
// Float64 segments stand alone in a call, the other dtypes may be mixed.
struct SegmentArguments {
  const void* a;        // [count]
  const void* b;        // [count], or [] in b_dtype, or null
  const void* weight;   // [count] in float (double for double), or null
  void* grad_a;         // [count] or null
  void* grad_b;         // [count], or [] in b_dtype, or null
  const void* va;       // [count] or null: 0.      Directions of the double backward
  const void* vb;       // [count], or [] in b_dtype, or null: 0
  int64_t count;        // 0 is allowed: the mean is NaN
  math::TermSpec term;  // phi: see math/terms.h
  double scale;         // of the mean in the total
  Dtype dtype;          // of a, and of all that is [count] but weights
  OperandB b_kind;
  Dtype b_dtype;  // of a scalar b, which may be any
};

// How a call is cut into blocks.
struct LossCut {
  int64_t chunk;            // most elements of a block, but for the head of a segment
  int64_t blocks;           // of all segments; one alone takes no ticket
  int64_t workspace_bytes;  // that any direction needs
};

// The segments of one call, and where they run.
struct LossCall {
  const SegmentArguments* segments;  // [size], on the host
  int size;
  bool is_double;       // compute and loss type: double, else float
  int multiprocessors;  // of the device: blocks are sized to fill it
  cudaStream_t stream;
  LossCut cut = {};  // cut_of(call)
  // Both may be null in a backward without a gradient of a scalar b, which sums nothing.
  void* workspace = nullptr;   // cut.workspace_bytes
  unsigned* ticket = nullptr;  // []
};

// Reads the fields above `cut`, and of the segments their counts.
LossCut cut_of(const LossCall& call);

// values are the means, total is  sum of scale * mean.  The outputs are of the loss type.
void multi_tensor_loss(const LossCall& call,
                       void* total,        // []
                       void* values,       // [size]
                       void* statistics);  // [size, 4] or null: of a, mean, standard deviation,
                                           // mean sign, number of elements that are not finite

// Writes grad_a and grad_b. Segments without either are passed over.
void multi_tensor_loss_backward(const LossCall& call,
                                const void* grad_total,    // [] in the loss type, or null
                                const void* grad_values);  // [size] in the loss type, or null

// The gradients of  sum of <grad_a, va> + <grad_b, vb>:  those of a and b go to grad_a and grad_b,
// where these are not null, those of grad_total and grad_values to their own outputs.
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
  cudaStream_t stream;
  // For norm_penalty and its double backward; the others take neither.
  void* workspace = nullptr;   // batch_workspace_bytes(call)
  unsigned* ticket = nullptr;  // []
};

// Reads the fields above `stream`.
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
             double sigma, const int64_t* seed,  // [], in device memory: a replay may read another
             void* out);                         // [rows, length]

// scale * mean over the samples of  p(norm of the gradient):  see math/penalty.h.
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
