// The ATen side of multi_tensor_loss on CUDA.
#include <algorithm>

#include "../host/segments.h"
#include "../ops.h"
#include "device.h"
#include "ticket.h"

namespace ganloss::cuda {

namespace {

// One segment on its way to the launchers.
struct Resolved : SegmentOperands {
  SegmentArguments arguments(double scale, const Gradients& outputs,
                             const Gradients& directions) const {
    return {pointer(a),
            pointer(b),
            pointer(weight),
            mutable_pointer(outputs.a),
            mutable_pointer(outputs.b),
            pointer(directions.a),
            pointer(directions.b),
            a.numel(),
            term,
            scale,
            dtype,
            !b.defined()     ? OperandB::kNone
            : has_scalar_b() ? OperandB::kScalar
                             : OperandB::kTensor,
            b.defined() ? dtype_of(b) : Dtype::kFloat};
  }
};

// Everything of a call that does not depend on the direction it runs in.
class Call {
 public:
  // A float64 segment makes the loss float64. The others of its list, if any, are converted:
  // kernels hold one compute type.
  explicit Call(const Segments& segments)
      : segments_(segments),
        loss_dtype_(segments.loss_dtype()),
        resolved_(resolve<Resolved>(
            segments, loss_dtype_ == at::kDouble ? std::optional(at::kDouble) : std::nullopt)),
        outputs_(resolved_.size()),
        directions_(resolved_.size()) {}

  int64_t size() const { return segments_.size(); }
  at::TensorOptions loss_options() const { return segments_.a[0].options().dtype(loss_dtype_); }

  // An incoming gradient, checked before, as the kernels read it: contiguous, in the loss dtype.
  at::Tensor incoming(const std::optional<at::Tensor>& gradient) const {
    return gradient ? in_dtype(*gradient, loss_dtype_).contiguous() : at::Tensor();
  }

  void set_directions(at::TensorList directions, at::IntArrayRef wanted) {
    directions_ = resolve_directions(segments_, resolved_, directions, wanted);
    for (size_t s = 0; s < resolved_.size(); ++s)
      if (directions_[s].has_scalar_b())
        directions_[s].b = in_dtype(directions_[s].b, resolved_[s].b.scalar_type());
  }

  // Allocates the wanted gradients for run() to write.
  Tensors allocate(at::IntArrayRef wanted) {
    return ganloss::allocate(segments_, resolved_, wanted, empty_like_dense, outputs_);
  }

  // What allocate() returned, after the launch, in the dtypes of the operands.
  Tensors in_dtypes_of_operands(Tensors gradients, at::IntArrayRef wanted) const {
    for (size_t k = 0; k < wanted.size(); ++k)
      gradients[k] = in_dtype(gradients[k], segments_.differentiable(wanted[k]).scalar_type());
    return gradients;
  }

  // Whether a launch sums: a backward does for the gradients of 0-d b alone.
  bool has_scalar_gradient() const {
    return std::any_of(outputs_.begin(), outputs_.end(),
                       [](const Gradients& output) { return output.has_scalar_b(); });
  }

  // Calls launch(call) with the segments as the launchers take them, on the current stream.
  template <typename Launch>
  void run(bool sums, Launch&& launch) const {
    c10::SmallVector<SegmentArguments, 8> arguments;
    for (size_t s = 0; s < resolved_.size(); ++s)
      arguments.push_back(resolved_[s].arguments(segments_.scale[s], outputs_[s], directions_[s]));
    LossCall call{arguments.data(), static_cast<int>(size()), loss_dtype_ == at::kDouble,
                  multiprocessors(), current_stream()};
    call.cut = cut_of(call);
    const at::Tensor& like = segments_.a[0];
    at::Tensor workspace;
    std::optional<Ticket> ticket;
    if (sums) {
      workspace = empty_bytes(call.cut.workspace_bytes, like);
      call.workspace = workspace.mutable_data_ptr();
      if (call.cut.blocks > 1) call.ticket = ticket.emplace(like).get();
    }
    launch(call);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }

 private:
  const Segments& segments_;
  at::ScalarType loss_dtype_;
  std::vector<Resolved> resolved_;               // [S]
  std::vector<Gradients> outputs_, directions_;  // [S]
};

}  // namespace

std::tuple<at::Tensor, at::Tensor, at::Tensor> multi_tensor_loss(GANLOSS_SEGMENT_PARAMETERS,
                                                                 bool with_statistics) {
  const Segments segments{GANLOSS_SEGMENT_ARGUMENTS};
  const Call call(segments);
  const c10::cuda::OptionalCUDAGuard guard(a[0].device());
  const at::Tensor total = at::empty({}, call.loss_options());
  const at::Tensor values = at::empty({call.size()}, call.loss_options());
  const at::Tensor statistics =
      at::empty({with_statistics ? call.size() : 0, 4}, call.loss_options());
  call.run(true, [&](const LossCall& launch) {
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
  check_wanted("wanted", segments, wanted);
  check_incoming(segments, grad_total, grad_values);
  const c10::cuda::OptionalCUDAGuard guard(a[0].device());
  const at::Tensor total = call.incoming(grad_total), values = call.incoming(grad_values);
  Tensors gradients = call.allocate(wanted);
  call.run(call.has_scalar_gradient(), [&](const LossCall& launch) {
    cuda::multi_tensor_loss_backward(launch, pointer(total), pointer(values));
  });
  return call.in_dtypes_of_operands(std::move(gradients), wanted);
}

std::tuple<at::Tensor, at::Tensor, Tensors> multi_tensor_loss_double_backward(
    at::TensorList directions, const std::optional<at::Tensor>& grad_total,
    const std::optional<at::Tensor>& grad_values, GANLOSS_SEGMENT_PARAMETERS,
    at::IntArrayRef wanted, at::IntArrayRef wanted_second) {
  const Segments segments{GANLOSS_SEGMENT_ARGUMENTS};
  Call call(segments);
  check_wanted("wanted_second", segments, wanted_second);
  check_incoming(segments, grad_total, grad_values);
  const c10::cuda::OptionalCUDAGuard guard(a[0].device());
  call.set_directions(directions, wanted);
  const at::Tensor total = call.incoming(grad_total), values = call.incoming(grad_values);
  Tensors gradients = call.allocate(wanted_second);
  const at::Tensor grad_grad_total = at::empty({}, call.loss_options());
  const at::Tensor grad_grad_values = at::empty({call.size()}, call.loss_options());
  call.run(true, [&](const LossCall& launch) {
    cuda::multi_tensor_loss_double_backward(launch, pointer(total), pointer(values),
                                            mutable_pointer(grad_grad_total),
                                            mutable_pointer(grad_grad_values));
  });
  return {grad_grad_total, grad_grad_values,
          call.in_dtypes_of_operands(std::move(gradients), wanted_second)};
}

}  // namespace ganloss::cuda
