// Measured over 200 shapes of layers: one thread, float32, AVX-512 (docs/performance.md says what
// came of it). Stock's way is a convolution for each group, with the batch for channels and the
// other gradient for a kernel. The kernel of an ordinary backward is up to 10 times faster where
// oneDNN generates code for the layer, and up to 4 times slower where it falls back to matrix
// products of unfolded images. On a GPU a launch for each group loses to anything.
#include "kernel_choice.h"

#include <ATen/Context.h>
#include <torch/csrc/autograd/generated/Functions.h>

#include <functional>
#include <numeric>
#include <vector>

namespace ganloss {

using torch::autograd::Edge;
using torch::autograd::Node;
using torch::autograd::generated::ConvolutionBackwardBackward0;

namespace {

// Below this a convolution costs more to call, 50 us, than to compute either way.
constexpr double kSmallGroup = 3e5;  // FLOPs of a group
constexpr int64_t kLongestRow = 14;  // of a kernel, for which oneDNN generates code

std::vector<int64_t> shape_of(const torch::autograd::InputMetadata& metadata) {
  std::vector<int64_t> shape;
  for (const c10::SymInt& extent : metadata.shape_as_dim_vector())
    shape.push_back(extent.guard_int(__FILE__, __LINE__));
  return shape;
}

double product(const std::vector<int64_t>& extents) {
  return std::accumulate(extents.begin(), extents.end(), 1.0, std::multiplies<>());
}

bool uses_onednn(at::ScalarType dtype) {
  return dtype != at::kDouble && at::globalContext().userEnabledMkldnn();
}

}  // namespace

bool backward_kernel_is_faster(const Node& stock) {
  const auto& convolution = static_cast<const ConvolutionBackwardBackward0&>(stock);
  const auto& options = stock.input_metadata(0).options();
  const std::vector<int64_t> image = shape_of(stock.input_metadata(0));  // [B, C, ...]
  if (!options.device().is_cpu() || image.size() < 3) return true;
  const Edge& edge = stock.next_edge(kWeight);
  const std::vector<int64_t> weight = shape_of(edge.function->input_metadata(edge.input_nr));
  const int64_t groups = convolution.groups.guard_int(__FILE__, __LINE__);

  // The smaller of the two images, which the kernel's taps are summed over.
  std::vector<int64_t> small(image.begin() + 2, image.end());
  for (size_t k = 0; k < small.size() && !convolution.transposed; ++k) {
    const auto of = [k](const std::vector<c10::SymInt>& values) {
      return values[k].guard_int(__FILE__, __LINE__);
    };
    const int64_t reach = of(convolution.dilation) * (weight[k + 2] - 1) + 1;
    small[k] = (small[k] + 2 * of(convolution.padding) - reach) / of(convolution.stride) + 1;
  }
  if (2.0 * image[0] * product(small) * product(weight) / groups < kSmallGroup)
    return true;
  const int64_t row = weight.back();
  if (row > kLongestRow) return false;
  if (!uses_onednn(c10::typeMetaToScalarType(options.dtype()))) return true;
  if (row > 1 && small.back() <= row) return false;
  // Channels are taken in blocks; in groups, only whole ones.
  const int64_t block = small.size() == 3 ? 16 : 8;
  return groups == 1 || (weight[0] / groups % block == 0 && weight[1] % block == 0);
}

}  // namespace ganloss
