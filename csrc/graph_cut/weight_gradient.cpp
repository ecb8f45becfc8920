// The weight gradient of a convolution in a double backward, at the price of an ordinary one.
//
// The inner gradient is  g = conv_backward_input(d, w), and of its incoming gradient v the weight
// gets  d<v, g>/dw = d<conv(v, w), d>/dw = conv_backward_weight(d, v): what the backward of a
// convolution computes of an image v and an output gradient d. Stock autograd computes the same
// numbers as a forward convolution, with the batch for channels and d for a kernel of the size of
// an image, for which the libraries have no fast algorithm: 2 to 6 times slower on the CPU.
//
// The rounding differs, so this is for graph_cut="fast" alone; and where that kernel is the slower
// one (kernel_choice.cpp), stock's node stays.
#include "weight_gradient.h"

#include <ATen/ops/_convolution_double_backward.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/convolution_backward.h>
#include <torch/csrc/autograd/generated/Functions.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <algorithm>
#include <mutex>

#include "../autograd/node.h"
#include "stand_in.h"

namespace ganloss {

using torch::autograd::variable_list;
using torch::autograd::generated::ConvolutionBackwardBackward0;

at::Tensor convolved(const ConvolutionBackwardBackward0& node, const at::Tensor& image,
                     const at::Tensor& weight) {
  return at::convolution_symint(image, weight, std::nullopt, node.stride, node.padding,
                                node.dilation, node.transposed, node.output_padding, node.groups);
}

at::Tensor weight_gradient(const ConvolutionBackwardBackward0& node, const at::Tensor& image,
                           const at::Tensor& grad_output, const at::Tensor& weight) {
  return std::get<1>(at::convolution_backward_symint(
      grad_output, image, weight, std::nullopt, node.stride, node.padding, node.dilation,
      node.transposed, node.output_padding, node.groups, {false, true, false}));
}

namespace {

// A second derivative of the penalty's gradient (an unrolled step) reaches stock's own node too,
// through the history of grad_output, and may release what the two of them share.
std::pair<at::Tensor, at::Tensor> unpacked(ConvolutionBackwardBackward0& saved) {
  try {
    return {saved.grad_output_.unpack(), saved.weight_.unpack()};
  } catch (const std::exception& error) {
    TORCH_CHECK_NOT_IMPLEMENTED(
        std::string(error.what()).find("backward through the graph a second time") ==
            std::string::npos,
        "graph_cut=\"fast\" cannot differentiate a penalty's gradient again (an unrolled step); "
        "use graph_cut=\"auto\".");
    throw;
  }
}

class FastConvolutionNode final : public StandIn {
 public:
  variable_list apply(variable_list&& grads) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    TORCH_CHECK(stock, torch::autograd::ERR_BACKWARD_TWICE);
    auto& saved = static_cast<ConvolutionBackwardBackward0&>(*stock);
    variable_list out(num_outputs());
    if (std::none_of(grads.begin(), grads.end(), [](const auto& g) { return g.defined(); }))
      return out;
    const auto [grad_output, weight] = unpacked(saved);
    const at::Tensor& direction = grads[0];
    if (grads[1].defined() || grads[2].defined()) {
      // The inner gradient includes parameters: a rare case, left to stock.
      std::tie(out[kGradOutput], out[kInput], out[kWeight]) =
          at::_convolution_double_backward_symint(
              direction, grads[1], grads[2], grad_output, weight, saved.input_.unpack(),
              saved.stride, saved.padding, saved.dilation, saved.transposed, saved.output_padding,
              saved.groups, {true, true, true});
      return out;
    }
    if (task_should_compute_output(kGradOutput))
      out[kGradOutput] = convolved(saved, direction, weight);
    if (task_should_compute_output(kWeight))
      out[kWeight] = weight_gradient(saved, direction, grad_output, weight);
    return out;
  }
  std::string name() const override { return kFastConvolutionSecondOrder; }
};

}  // namespace

NodeHandle fast_weight_gradient(const NodeHandle& stock) {
  if (stock->num_outputs() <= kWeight || !stock->next_edge(kWeight).is_valid()) return {};
  auto node = make_node<FastConvolutionNode>();
  node->stand_in_for(stock);
  return node;
}

}  // namespace ganloss
