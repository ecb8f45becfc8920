// Stock's way is a convolution for each group, with the batch for channels and the other gradient
// for a kernel. The kernel of an ordinary backward is up to 10 times faster where oneDNN generates
// code for the layer, and up to 4 times slower where it multiplies matrices of unfolded images. On
// a GPU a launch for each group loses to anything.
//
// The limits were measured on 200 kinds of layers, float32, one thread, AVX-512, and held on 248
// others drawn at random.
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

// A group with less to do than this takes longer to call, 50 us, than to compute; and stock's way
// is slow where it has few numbers to compute, those of the kernel, from large images.
constexpr double kSmallGroup = 3e5;  // FLOPs
constexpr double kSmallGroupOfFewTaps = 3e6;
constexpr double kFewTaps = 15;
// For which oneDNN generates code: rows of a kernel up to this length, channels in whole blocks,
// and an image of one or three channels.
constexpr int64_t kLongestRow = 14;
constexpr int64_t kBlock = 8, kBlockOfVolumes = 16;
constexpr int64_t kColours = 3;

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
  const double taps = product({weight.begin() + 2, weight.end()});
  const double flops = 2.0 * image[0] * product(small) * product(weight) / groups;  // of a group
  if (flops < (taps > kFewTaps ? kSmallGroup : kSmallGroupOfFewTaps)) return true;
  const int64_t row = weight.back();
  if (row > kLongestRow) return false;
  if (!uses_onednn(c10::typeMetaToScalarType(options.dtype()))) return true;
  if (row > 1 && small.back() <= row) return false;  // nothing to unroll
  const bool is_volume = small.size() == 3;
  const int64_t block = is_volume ? kBlockOfVolumes : kBlock;
  if (groups > 1) return weight[0] / groups % block == 0 && weight[1] % block == 0;
  return !is_volume || weight[1] >= block || weight[1] <= kColours;
}

}  // namespace ganloss
