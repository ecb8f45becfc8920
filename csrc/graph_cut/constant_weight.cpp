// The double backward of a convolution whose weight is a constant, such as a blur.
//
// The inner gradient is  g = conv_backward_input(d, w). Its incoming gradient v sends conv(v, w)
// to d, and nothing else has a gradient. Stock autograd computes the weight's as well, whether or
// not anybody asks for it, and for a filter in groups as a convolution for each group: 257
// instead of one for a blur of 256 channels. What is left is the call that stock makes, so the
// result is the same to the bit.
//
// The node holds the weight itself and nothing of stock's node, which the same backward may reach
// on another way, and release.
#include "constant_weight.h"

#include <ATen/ops/convolution.h>
#include <torch/csrc/autograd/generated/Functions.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <mutex>

#include "../autograd/node.h"

namespace ganloss {

using torch::autograd::Node;
using torch::autograd::SavedVariable;
using torch::autograd::variable_list;
using torch::autograd::generated::ConvolutionBackwardBackward0;

namespace {

class ConstantConvolutionNode final : public StandIn {
 public:
  void copy_convolution(const ConvolutionBackwardBackward0& stock) {
    weight_ = SavedVariable(stock.weight_.unpack(), /*is_output=*/false);
    stride_ = stock.stride;
    padding_ = stock.padding;
    dilation_ = stock.dilation;
    transposed_ = stock.transposed;
    output_padding_ = stock.output_padding;
    groups_ = stock.groups;
  }

  variable_list apply(variable_list&& grads) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    variable_list out(num_outputs());
    at::Tensor weight = weight_.unpack();  // refuses one that was changed, or released
    if (!grads[0].defined() || !task_should_compute_output(kGradOutput)) return out;
    if (weight.is_cuda()) weight = weight.contiguous();  // as stock does
    out[kGradOutput] = at::convolution_symint(grads[0], weight, std::nullopt, stride_, padding_,
                                              dilation_, transposed_, output_padding_, groups_);
    return out;
  }
  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    weight_.reset_data();
  }
  std::string name() const override { return kConstantConvolutionSecondOrder; }

 private:
  SavedVariable weight_;
  std::vector<c10::SymInt> stride_, padding_, dilation_, output_padding_;
  bool transposed_ = false;
  c10::SymInt groups_;
};

// A gradient that the inner backward did not compute has no shape.
bool was_computed(const Node& stock, uint32_t gradient) {
  return gradient < stock.num_inputs() &&
         !stock.input_metadata(gradient).shape_as_dim_vector().empty();
}

}  // namespace

NodeHandle without_weight_gradient(const NodeHandle& stock) {
  if (stock->num_outputs() <= kWeight || stock->next_edge(kWeight).is_valid()) return {};
  if (was_computed(*stock, 1) || was_computed(*stock, 2)) return {};
  const auto& saved = static_cast<const ConvolutionBackwardBackward0&>(*stock);
  // Unpacking what a hook packed (checkpointing, offloading) is for the backward to do.
  if (saved.weight_.has_hooks()) return {};
  auto node = make_node<ConstantConvolutionNode>();
  node->take_the_place_of(*stock);
  node->copy_convolution(saved);
  return node;
}

}  // namespace ganloss
