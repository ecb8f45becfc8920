// The ATen side of the CUDA kernels: checks, memory layouts, allocation, and one call of a
// launcher. Nothing synchronises: scalars that live on the device are read there.
#include "ops.h"

#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <array>
#include <atomic>

#include "../checks.h"
#include "../layout.h"
#include "launch.h"

namespace ganloss::cuda {

namespace {

Dtype dtype_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kDouble:
      return Dtype::kDouble;
    case at::kHalf:
      return Dtype::kHalf;
    case at::kBFloat16:
      return Dtype::kBFloat16;
    default:
      return Dtype::kFloat;
  }
}

// Multiprocessors of the current device. They fix the number of blocks, and with it the order of
// every sum: results are bitwise reproducible on one kind of device.
int multiprocessors() {
  static std::array<std::atomic<int>, 64> known{};
  int device = 0;
  C10_CUDA_CHECK(cudaGetDevice(&device));
  std::atomic<int>& count = known[static_cast<size_t>(device) % known.size()];
  if (count.load(std::memory_order_relaxed) == 0) {
    int found = 0;
    C10_CUDA_CHECK(cudaDeviceGetAttribute(&found, cudaDevAttrMultiProcessorCount, device));
    count.store(found, std::memory_order_relaxed);
  }
  return count.load(std::memory_order_relaxed);
}

cudaStream_t current_stream() {
  return c10::cuda::getCurrentCUDAStream().stream();
}

// Per call, from the caching allocator: shared workspace would race between streams, and this
// one belongs to the graph that captures it.
at::Tensor empty_bytes(int64_t bytes, const at::Tensor& like) {
  return at::empty({bytes}, like.options().dtype(at::kByte));
}

at::Tensor empty_like_dense(const at::Tensor& like) {
  return at::empty_strided(like.sizes(), like.strides(), like.options());
}

const void* pointer(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.const_data_ptr() : nullptr;
}
void* mutable_pointer(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.mutable_data_ptr() : nullptr;
}

// ---- multi_tensor_loss -----------------------------------------------------------------------

// One segment with its operands in one memory order and the dtype they are computed in.
struct Resolved {
  at::Tensor a;
  at::Tensor b;       // undefined, 0-d, or in the layout of a
  at::Tensor weight;  // undefined, or in the layout of a and its compute dtype
  at::Tensor va, vb;  // directions of the double backward, in the layout of a
  at::Tensor grad_a, grad_b;
  math::TermSpec term;
  double scale;

  bool has_scalar_b() const { return b.defined() && b.dim() == 0; }
  SegmentArguments arguments() const {
    return {pointer(a),
            pointer(b),
            pointer(weight),
            mutable_pointer(grad_a),
            mutable_pointer(grad_b),
            pointer(va),
            pointer(vb),
            a.numel(),
            term,
            scale,
            dtype_of(a),
            !b.defined()     ? OperandB::kNone
            : has_scalar_b() ? OperandB::kScalar
                             : OperandB::kTensor,
            b.defined() ? dtype_of(b) : Dtype::kFloat};
  }
};

// Everything of a call that does not depend on the direction it runs in.
class Call {
 public:
  explicit Call(const Segments& segments) : segments_(segments), resolved_(segments.size()) {
    check_segments(segments);
    // A float64 segment makes the loss float64. The others of its list, if any, are converted:
    // kernels hold one compute type.
    const at::ScalarType loss = segments.loss_dtype();
    const at::Tensor* b = segments.b.data();
    const at::Tensor* weight = segments.weights.data();
    for (int64_t s = 0; s < segments.size(); ++s) {
      Resolved& segment = resolved_[s];
      segment.a = in_dtype(dense(segments.a[s]));
      segment.term = segments.term(s);
      segment.scale = segments.scale[s];
      if (segments.has_b(s)) {
        segments_with_b_.push_back(s);
        segment.b = b->dim() == 0 ? *b : in_layout_of(in_dtype(*b), segment.a);
        ++b;
      }
      if (segments.has_weight(s)) segment.weight = in_layout_of((weight++)->to(loss), segment.a);
    }
  }

  Resolved& operator[](int64_t s) { return resolved_[s]; }
  int64_t size() const { return segments_.size(); }
  at::ScalarType loss_dtype() const { return segments_.loss_dtype(); }
  at::TensorOptions loss_options() const { return segments_.a[0].options().dtype(loss_dtype()); }

  // The tensor in the dtype that the kernels read it in: its own, or the float64 of the list.
  at::Tensor in_dtype(const at::Tensor& tensor) const {
    return loss_dtype() == at::kDouble ? tensor.to(at::kDouble) : tensor;
  }

  // Calls visitor(position in wanted, segment, whether it is the segment's b).
  template <typename Visitor>
  void for_each_wanted(const char* name, at::IntArrayRef wanted, Visitor&& visitor) {
    const int64_t limit = size() + static_cast<int64_t>(segments_.b.size());
    for (size_t k = 0; k < wanted.size(); ++k) {
      TORCH_CHECK_VALUE(0 <= wanted[k] && wanted[k] < limit, name, ": expected indices from 0 to ",
                        limit - 1, ", got ", wanted[k]);
      const bool is_b = wanted[k] >= size();
      visitor(k, is_b ? segments_with_b_[wanted[k] - size()] : wanted[k], is_b);
    }
  }

  // Allocates the wanted gradients in the segments.
  void allocate(const char* name, at::IntArrayRef wanted) {
    for_each_wanted(name, wanted, [&](size_t, int64_t s, bool is_b) {
      Resolved& segment = resolved_[s];
      if (is_b)
        segment.grad_b = segment.has_scalar_b() ? at::empty({}, segment.b.options())
                                                : empty_like_dense(segment.a);
      else
        segment.grad_a = empty_like_dense(segment.a);
    });
  }

  // The wanted gradients after the launch, in the dtypes of their tensors.
  Tensors gradients(at::IntArrayRef wanted) {
    Tensors list(wanted.size());
    for_each_wanted("wanted", wanted, [&](size_t k, int64_t s, bool is_b) {
      const Resolved& segment = resolved_[s];
      list[k] = !is_b                    ? segment.grad_a.to(segments_.a[s].scalar_type())
                : segment.has_scalar_b() ? segment.grad_b
                                         : segment.grad_b.to(segments_.a[s].scalar_type());
    });
    return list;
  }

  // Calls launch(call) with the segments as the launchers take them, on the current stream.
  template <typename Launch>
  void run(Launch&& launch) {
    c10::SmallVector<SegmentArguments, 8> arguments;
    for (const Resolved& segment : resolved_) arguments.push_back(segment.arguments());
    LossCall call{
        arguments.data(), static_cast<int>(size()), loss_dtype() == at::kDouble, multiprocessors(),
        nullptr,          current_stream()};
    const at::Tensor workspace = empty_bytes(loss_workspace_bytes(call), segments_.a[0]);
    call.workspace = workspace.mutable_data_ptr();
    launch(call);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }

 private:
  const Segments& segments_;
  std::vector<Resolved> resolved_;
  std::vector<int64_t> segments_with_b_;
};

// An incoming gradient as the kernels read it: contiguous, in the loss dtype.
at::Tensor incoming(const char* name, const std::optional<at::Tensor>& gradient,
                    at::IntArrayRef shape, const at::Tensor& like, at::ScalarType dtype) {
  if (!gradient) return {};
  check_shape(name, *gradient, shape, like);
  return gradient->to(dtype).contiguous();
}

// ---- batches ---------------------------------------------------------------------------------

// A call over `batch`, whose samples are blocks of memory, as `rows` rows.
BatchCall batch_call(const at::Tensor& batch, int64_t rows) {
  return {rows,
          rows == 0 ? 0 : batch.numel() / rows,
          dtype_of(batch),
          multiprocessors(),
          nullptr,
          current_stream()};
}

Penalty penalty_of(int64_t mode, double target, double scale) {
  return {static_cast<math::PenaltyMode>(mode), target, scale};
}

}  // namespace

std::tuple<at::Tensor, at::Tensor, at::Tensor> multi_tensor_loss(GANLOSS_SEGMENT_PARAMETERS,
                                                                 bool with_statistics) {
  const Segments segments{GANLOSS_SEGMENT_ARGUMENTS};
  Call call(segments);
  const c10::cuda::OptionalCUDAGuard guard(a[0].device());
  const at::Tensor total = at::empty({}, call.loss_options());
  const at::Tensor values = at::empty({call.size()}, call.loss_options());
  const at::Tensor statistics =
      at::empty({with_statistics ? call.size() : 0, 4}, call.loss_options());
  call.run([&](const LossCall& launch) {
    cuda::multi_tensor_loss(launch, mutable_pointer(total), mutable_pointer(values),
                            with_statistics ? mutable_pointer(statistics) : nullptr);
  });
  return {total, values, statistics};
}

Tensors multi_tensor_loss_backward(const std::optional<at::Tensor>& grad_total,
                                   const std::optional<at::Tensor>& grad_values,
                                   GANLOSS_SEGMENT_PARAMETERS, at::IntArrayRef wanted) {
  const Segments segments{GANLOSS_SEGMENT_ARGUMENTS};
  Call call(segments);
  const c10::cuda::OptionalCUDAGuard guard(a[0].device());
  call.allocate("wanted", wanted);
  const at::Tensor total = incoming("grad_total", grad_total, {}, a[0], call.loss_dtype());
  const at::Tensor values =
      incoming("grad_values", grad_values, {call.size()}, a[0], call.loss_dtype());
  call.run([&](const LossCall& launch) {
    cuda::multi_tensor_loss_backward(launch, pointer(total), pointer(values));
  });
  return call.gradients(wanted);
}

std::tuple<at::Tensor, at::Tensor, Tensors> multi_tensor_loss_double_backward(
    at::TensorList directions, const std::optional<at::Tensor>& grad_total,
    const std::optional<at::Tensor>& grad_values, GANLOSS_SEGMENT_PARAMETERS,
    at::IntArrayRef wanted, at::IntArrayRef wanted_second) {
  const Segments segments{GANLOSS_SEGMENT_ARGUMENTS};
  Call call(segments);
  TORCH_CHECK_VALUE(directions.size() == wanted.size(), "directions: expected ", wanted.size(),
                    " tensors, one for each entry of wanted, got ", directions.size());
  const c10::cuda::OptionalCUDAGuard guard(a[0].device());
  call.for_each_wanted("wanted", wanted, [&](size_t k, int64_t s, bool is_b) {
    Resolved& segment = call[s];
    if (is_b && segment.has_scalar_b()) {
      check_shape("directions", directions[k], {}, a[s]);
      segment.vb = directions[k].to(segment.b.scalar_type());
    } else {
      check_same("directions", directions[k], segments.a[s]);
      (is_b ? segment.vb : segment.va) = in_layout_of(call.in_dtype(directions[k]), segment.a);
    }
  });
  call.allocate("wanted_second", wanted_second);
  const at::Tensor total = incoming("grad_total", grad_total, {}, a[0], call.loss_dtype());
  const at::Tensor values =
      incoming("grad_values", grad_values, {call.size()}, a[0], call.loss_dtype());
  const at::Tensor grad_grad_total = at::empty({}, call.loss_options());
  const at::Tensor grad_grad_values = at::empty({call.size()}, call.loss_options());
  call.run([&](const LossCall& launch) {
    cuda::multi_tensor_loss_double_backward(launch, pointer(total), pointer(values),
                                            mutable_pointer(grad_grad_total),
                                            mutable_pointer(grad_grad_values));
  });
  return {grad_grad_total, grad_grad_values, call.gradients(wanted_second)};
}

at::Tensor interpolate(const at::Tensor& real, const at::Tensor& fake, const at::Tensor& alpha) {
  check_operand("real", real, real);
  check_same("fake", fake, real);
  check_operand("alpha", alpha, real);
  const bool per_sample = alpha.dim() == 1 && real.dim() >= 1 && alpha.size(0) == real.size(0);
  const bool per_element = !per_sample && alpha.dim() > 0;
  TORCH_CHECK_VALUE(!per_element || alpha.sizes() == real.sizes(),
                    "alpha: expected a 0-d tensor, one value for each of the ",
                    real.dim() ? real.size(0) : 1, " samples, or shape ", real.sizes(), ", got ",
                    alpha.sizes());
  const c10::cuda::OptionalCUDAGuard guard(real.device());
  const at::Tensor r = per_sample ? dense_by_sample(real) : dense(real);
  const at::Tensor f = in_layout_of(fake, r);
  const at::Tensor weight = alpha.to(compute_dtype(real));
  const at::Tensor w = per_element ? in_layout_of(weight, r) : weight.contiguous();
  const at::Tensor out = empty_like_dense(r);
  const BatchCall call = batch_call(r, per_sample ? r.size(0) : 1);
  cuda::interpolate(call, pointer(f), pointer(r), pointer(w), per_element, mutable_pointer(out));
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return restore_layout(out, r, real);
}

at::Tensor perturb(const at::Tensor& inputs, double sigma, const at::Tensor& seed) {
  check_operand("inputs", inputs, inputs);
  check_seed(seed, inputs);
  const c10::cuda::OptionalCUDAGuard guard(inputs.device());
  const at::Tensor x = inputs.contiguous();  // noise follows the row-major index in any layout
  const at::Tensor out = empty_like_dense(x);
  cuda::perturb(batch_call(x, 1), pointer(x), sigma, seed.const_data_ptr<int64_t>(),
                mutable_pointer(out));
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return restore_layout(out, x, inputs);
}

std::tuple<at::Tensor, at::Tensor> norm_penalty(const at::Tensor& gradient, int64_t mode,
                                                         double target, double scale) {
  check_penalty(gradient, mode);
  const c10::cuda::OptionalCUDAGuard guard(gradient.device());
  const at::Tensor g = dense_by_sample(gradient);
  const auto options = g.options().dtype(compute_dtype(g));
  const at::Tensor penalty = at::empty({}, options);
  const at::Tensor norms = at::empty({g.size(0)}, options);
  BatchCall call = batch_call(g, g.size(0));
  const at::Tensor workspace = empty_bytes(batch_workspace_bytes(call), g);
  call.workspace = workspace.mutable_data_ptr();
  cuda::norm_penalty(call, penalty_of(mode, target, scale), pointer(g),
                              mutable_pointer(penalty), mutable_pointer(norms));
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return {penalty, norms};
}

at::Tensor norm_penalty_backward(const at::Tensor& grad_penalty,
                                          const at::Tensor& gradient, const at::Tensor& norms,
                                          int64_t mode, double target, double scale) {
  check_penalty_backward(grad_penalty, gradient, norms, mode);
  const c10::cuda::OptionalCUDAGuard guard(gradient.device());
  const at::Tensor g = dense_by_sample(gradient);
  const at::Tensor incoming = grad_penalty.to(compute_dtype(g));
  const at::Tensor n = norms.to(compute_dtype(g)).contiguous();
  const at::Tensor out = empty_like_dense(g);
  cuda::norm_penalty_backward(batch_call(g, g.size(0)), penalty_of(mode, target, scale),
                                       pointer(incoming), pointer(g), pointer(n),
                                       mutable_pointer(out));
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return restore_layout(out, g, gradient);
}

std::tuple<at::Tensor, at::Tensor> norm_penalty_double_backward(
    const at::Tensor& direction, const at::Tensor& grad_penalty, const at::Tensor& gradient,
    const at::Tensor& norms, int64_t mode, double target, double scale) {
  check_penalty_backward(grad_penalty, gradient, norms, mode);
  check_same("direction", direction, gradient);
  const c10::cuda::OptionalCUDAGuard guard(gradient.device());
  const at::Tensor g = dense_by_sample(gradient);
  const at::Tensor v = in_layout_of(direction, g);
  const at::ScalarType compute = compute_dtype(g);
  const at::Tensor incoming = grad_penalty.to(compute), n = norms.to(compute).contiguous();
  const at::Tensor dots = at::empty_like(n), grad_grad = at::empty({}, n.options());
  const at::Tensor out = empty_like_dense(g);
  BatchCall call = batch_call(g, g.size(0));
  const at::Tensor workspace = empty_bytes(batch_workspace_bytes(call), g);
  call.workspace = workspace.mutable_data_ptr();
  cuda::norm_penalty_double_backward(
      call, penalty_of(mode, target, scale), pointer(v), pointer(incoming), pointer(g), pointer(n),
      mutable_pointer(dots), mutable_pointer(grad_grad), mutable_pointer(out));
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return {grad_grad.to(grad_penalty.scalar_type()), restore_layout(out, g, gradient)};
}

}  // namespace ganloss::cuda
