// Value and gradient of a multi-tensor loss in one pass over its operands.
//
// The forward reads the operands anyway, so it keeps what the backward needs of them:
//
//   term                          kept                     the backward
//   linear                        nothing                  writes one number
//   hinge, abs in half precision  two bits for each slope  writes the gradient
//   the others, or with weights   the gradient, made for   hands it out, or multiplies it in place
//                                 the scale of its segment
//
// The first two serve every incoming gradient. The last serves those that are a number times the
// expected one; in half precision, which would be rounded twice, only the expected one itself. What
// cannot be served is computed from the operands, after what was kept for it is freed. (Bits in
// float32 would serve a factor for nothing, but cost the backward without one a third.)
//
// The incoming gradient must be read to know all that, which on a GPU would stop the host: so this
// is for the CPU, in plain eager mode.
#pragma once

#include <tuple>

#include "../ops.h"
#include "segments.h"

namespace ganloss::cpu {

using LossOutputs = std::tuple<at::Tensor, at::Tensor, at::Tensor>;  // of multi_tensor_loss

// What one segment keeps from its forward for its backward.
struct SegmentAhead {
  enum class Kept { kNothing, kConstant, kSlopes, kGradient };

  Kept kept = Kept::kNothing;
  Dtype dtype;
  at::ScalarType dtype_of_a, dtype_of_b;
  c10::SmallVector<int64_t, 5> sizes, strides;  // of the gradients of a and of a tensor b
  int64_t count;
  bool b_is_scalar = false;
  double step = 0.0;        // of the term
  double scale = 0.0;       // in the total
  double made_for = 0.0;    // the incoming gradient of the mean: the scale, or 1 where that is 0
  bool is_normal = false;   // every gradient, for they have one size
  double sum = 0.0;         // of the gradients made for a, or of the slopes
  int64_t first_group = 0;  // of the slopes
  Gradients made;           // until they are handed out

  // What makes gradients of slopes, or those made into those for another incoming gradient.
  double factor(double incoming) const;
  // Whether factor * sum is the sum of the gradients.
  bool sum_serves(double factor) const;
  int64_t byte_of(int64_t slope) const { return first_group * kBytesOfGroup + slope / 4; }
};

struct Job;

class GradientsAhead {
 public:
  // Before the forward. wanted: indices into a ++ b.
  void prepare(const Segments& segments, const std::vector<Resolved>& resolved,
               at::IntArrayRef wanted);
  // The kernels over one piece.
  TermSums visit(const Resolved& segment, const Piece& piece);
  // After the last piece; [S] sums of what visit() returned.
  void finish(const std::vector<double>& gradient_sums);

  // Whether gradients may be taken without a look at the operands: for the backward that starts at
  // the total itself, the first time.
  bool is_expected(const Incoming& incoming) const { return !is_taken_ && incoming.is_one(); }
  // Fills gradients[k], k an index into a ++ b, for the `wanted` that can be served, and returns
  // the others.
  std::vector<int64_t> take(const Incoming& incoming, const std::vector<int64_t>& wanted,
                            Tensors& gradients);
  void clear();
  bool is_empty() const { return segments_.empty(); }

 private:
  void run(std::vector<Job>& jobs, std::vector<int64_t>& left, Tensors& gradients) const;

  std::vector<SegmentAhead> segments_;
  std::vector<int64_t> segment_of_b_;
  at::Tensor slopes_;                 // uint8, by groups
  const Kernels* kernels_ = nullptr;  // that wrote the slopes
  bool is_taken_ = false;
};

// multi_tensor_loss that fills `ahead`, where it is not null, for the `wanted` of  a ++ b.
LossOutputs multi_tensor_loss_ahead(GANLOSS_SEGMENT_PARAMETERS, bool with_statistics,
                                    GradientsAhead* ahead, at::IntArrayRef wanted);

// Whether a tensor is an ordinary CPU tensor outside of any tracer, mode or transform, so that
// its data may be read and kernels called without the dispatcher. An undefined one is.
bool is_plain(const at::Tensor& tensor);
bool are_plain(at::TensorList tensors);

}  // namespace ganloss::cpu
