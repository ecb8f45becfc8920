// Which operations of a critic keep the samples of a batch apart.
//
// A tensor [N, ...] that comes from B samples has N / B rows of each, one sample's after the
// other's: row r is of sample r / (N / B). The samples start out that way, and an operation in the
// table keeps it so: it computes row r of its output from rows of the same sample. Reshapes keep
// it by the order of the elements, whatever the shape, as long as B divides the rows.
//
// An operation that is not in the table may mix the samples. That is decided anew for every graph,
// by what its nodes have saved: a flip along axis 1 is another matter than one along axis 0.
#include "sample_rows.h"

#include <torch/csrc/autograd/generated/Functions.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <typeinfo>
#include <unordered_map>

namespace ganloss {

namespace generated = torch::autograd::generated;
using torch::autograd::Node;

namespace {

using Rule = bool (*)(const RowStep&);

bool same_rows(const RowStep& step) {
  return !step.input.empty() && !step.output.empty() && step.input[0] == step.output[0];
}

// Elementwise. A tensor of fewer dimensions would be broadcast along its samples.
bool aligned(const RowStep& step) {
  return same_rows(step) && step.input.size() == step.output.size();
}

bool reshaped(const RowStep& step) {
  return !step.output.empty() && step.output[0] % step.samples == 0;
}

// Rows of one operand; the other one is made of parameters.
template <uint32_t operand>
bool of_operand(const RowStep& step) {
  return step.edge == operand && same_rows(step);
}

// The dimensions along which an operation works, as its node has saved them.
template <typename NodeType>
std::vector<int64_t> dimensions(const NodeType& node) {
  if constexpr (requires { node.dims; })
    return node.dims;
  else if constexpr (requires { node.dim0; })
    return {node.dim0, node.dim1};
  else if constexpr (requires { node.dimension; })
    return {node.dimension};
  else if constexpr (requires { node.dim.list; })
    return node.dim.list.value_or(std::vector<int64_t>());
  else if constexpr (requires { node.dim.size(); })
    return node.dim;
  else
    return {node.dim};
}

template <typename NodeType>
bool along_others(const RowStep& step) {
  if (!same_rows(step)) return false;
  const std::vector<int64_t> along = dimensions(static_cast<const NodeType&>(step.node));
  const auto count = static_cast<int64_t>(std::max(step.input.size(), step.output.size()));
  return !along.empty() && std::none_of(along.begin(), along.end(), [count](int64_t dimension) {
    return dimension == 0 || dimension == -count;
  });
}

bool permuted(const RowStep& step) {
  const auto& dims = static_cast<const generated::PermuteBackward0&>(step.node).dims;
  return !dims.empty() && (dims[0] == 0 || dims[0] == -static_cast<int64_t>(dims.size()));
}

bool padded(const RowStep& step) {  // two widths for each of the last dimensions
  const auto& widths = static_cast<const generated::ConstantPadNdBackward0&>(step.node).pad;
  return same_rows(step) && widths.size() < 2 * step.input.size();
}

bool repeated(const RowStep& step) {
  const auto& repeats = static_cast<const generated::RepeatBackward0&>(step.node).repeats;
  return aligned(step) && repeats.size() == step.input.size();
}

// x[:, i] or x[rows, labels]
bool indexed(const RowStep& step) {
  if (!same_rows(step)) return false;
  std::vector<at::Tensor> indices;
  for (const auto& saved : static_cast<const generated::IndexBackward0&>(step.node).indices_)
    indices.push_back(saved.unpack());
  const auto is_given = [](const at::Tensor& index) { return index.defined(); };
  const auto first = std::find_if(indices.begin(), indices.end(), is_given);
  if (first == indices.end() || first->scalar_type() != at::kLong) return false;
  if (first != indices.begin()) {
    // Indices with a slice between them put their dimensions first.
    const auto behind = std::find_if_not(first, indices.end(), is_given);
    return std::none_of(behind, indices.end(), is_given);
  }
  if (first->dim() == 0 || first->size(0) != step.input[0] || first->numel() != step.input[0])
    return false;
  step.row_indices.push_back(*first);
  return std::all_of(indices.begin(), indices.end(), [&](const at::Tensor& index) {
    return !index.defined() || (index.scalar_type() == at::kLong && index.dim() <= first->dim());
  });
}

struct Group {
  Rule rule;
  std::vector<const char*> nodes;
};

const Group kGroups[] = {
    {aligned,
     {"ReluBackward0", "ThresholdBackward0", "ThresholdBackward1", "LeakyReluBackward0",
      "LeakyReluBackward1", "PreluKernelBackward0", "HardtanhBackward0", "RreluWithNoiseBackward0",
      "RreluWithNoiseBackward1", "HardshrinkBackward0", "SoftshrinkBackward0", "AbsBackward0",
      "NegBackward0", "AddBackward0", "AddBackward1", "SubBackward0", "SubBackward1",
      "RsubBackward0", "RsubBackward1", "MulBackward0", "MulBackward1", "DivBackward0",
      "DivBackward1", "AddcmulBackward0", "AddcdivBackward0", "ClampBackward0", "ClampBackward1",
      "ClampMinBackward0", "ClampMinBackward1", "ClampMaxBackward0", "ClampMaxBackward1",
      "WhereBackward0", "MaximumBackward0", "MinimumBackward0", "MaskedFillBackward0",
      "MaskedFillBackward1", "ToCopyBackward0", "CloneBackward0", "AliasBackward0",
      "ExpandBackward0", "NativeDropoutBackward0", "FusedDropoutBackward0",
      // Curved ones keep the samples apart, too: what speaks against them is that they are curved.
      "SiluBackward0", "MishBackward0", "EluBackward0", "EluBackward1", "CeluBackward0",
      "CeluBackward1", "GeluBackward0", "HardswishBackward0", "HardsigmoidBackward0",
      "LogSigmoidBackward0", "SoftplusBackward0", "SigmoidBackward0", "TanhBackward0",
      "SinBackward0", "CosBackward0", "ExpBackward0", "LogBackward0", "SqrtBackward0",
      "RsqrtBackward0", "PowBackward0", "ReciprocalBackward0", "ErfBackward0"}},
    {reshaped,
     {"ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0", "UnsqueezeBackward0",
      "SqueezeBackward0", "SqueezeBackward1", "SqueezeBackward2"}},
    {of_operand<0>, {"ConvolutionBackward0", "MmBackward0", "MvBackward0"}},
    {of_operand<1>, {"AddmmBackward0", "AddmvBackward0"}},
    {same_rows,
     {"BmmBackward0", "BaddbmmBackward0", "AvgPool2DBackward0", "AvgPool3DBackward0",
      "AdaptiveAvgPool2DBackward0", "AdaptiveAvgPool3DBackward0", "AdaptiveMaxPool2DBackward0",
      "AdaptiveMaxPool3DBackward0", "MaxPool2DWithIndicesBackward0",
      "MaxPool3DWithIndicesBackward0", "FractionalMaxPool2DBackward0",
      "FractionalMaxPool3DBackward0", "ReflectionPad1DBackward0", "ReflectionPad2DBackward0",
      "ReflectionPad3DBackward0", "ReplicationPad1DBackward0", "ReplicationPad2DBackward0",
      "ReplicationPad3DBackward0", "UpsampleNearest1DBackward0", "UpsampleNearest2DBackward0",
      "UpsampleNearest3DBackward0", "UpsampleLinear1DBackward0", "UpsampleBilinear2DBackward0",
      "UpsampleTrilinear3DBackward0", "UpsampleBicubic2DBackward0", "UpsampleBilinear2DAaBackward0",
      "UpsampleBicubic2DAaBackward0", "PixelShuffleBackward0", "PixelUnshuffleBackward0",
      "ChannelShuffleBackward0", "Im2ColBackward0", "GridSampler2DBackward0",
      "GridSampler3DBackward0",
      // Curved, and apart for each sample.
      "NativeLayerNormBackward0", "NativeGroupNormBackward0"}},
    {along_others<generated::SumBackward1>, {"SumBackward1"}},
    {along_others<generated::MeanBackward1>, {"MeanBackward1"}},
    {along_others<generated::AmaxBackward0>, {"AmaxBackward0"}},
    {along_others<generated::AminBackward0>, {"AminBackward0"}},
    {along_others<generated::MaxBackward0>, {"MaxBackward0"}},
    {along_others<generated::MinBackward0>, {"MinBackward0"}},
    {along_others<generated::CatBackward0>, {"CatBackward0"}},
    {along_others<generated::StackBackward0>, {"StackBackward0"}},
    {along_others<generated::SliceBackward0>, {"SliceBackward0"}},
    {along_others<generated::SelectBackward0>, {"SelectBackward0"}},
    {along_others<generated::SplitBackward0>, {"SplitBackward0"}},
    {along_others<generated::SplitWithSizesBackward0>, {"SplitWithSizesBackward0"}},
    {along_others<generated::UnbindBackward0>, {"UnbindBackward0"}},
    {along_others<generated::TransposeBackward0>, {"TransposeBackward0"}},
    {along_others<generated::GatherBackward0>, {"GatherBackward0"}},
    {along_others<generated::IndexSelectBackward0>, {"IndexSelectBackward0"}},
    {along_others<generated::FlipBackward0>, {"FlipBackward0"}},
    {along_others<generated::RollBackward0>, {"RollBackward0"}},
    {along_others<generated::UnfoldBackward0>, {"UnfoldBackward0"}},
    {along_others<generated::SortBackward0>, {"SortBackward0"}},
    {along_others<generated::TopkBackward0>, {"TopkBackward0"}},
    {along_others<generated::CumsumBackward0>, {"CumsumBackward0"}},
    {along_others<generated::SoftmaxBackward0>, {"SoftmaxBackward0"}},
    {permuted, {"PermuteBackward0"}},
    {padded, {"ConstantPadNdBackward0"}},
    {repeated, {"RepeatBackward0"}},
    {indexed, {"IndexBackward0"}},
};

Rule find_rule(const std::string& name) {
  for (const Group& group : kGroups)
    for (const char* node : group.nodes)
      if (name == node) return group.rule;
  return nullptr;
}

// By C++ type, as a name costs an allocation. The caller holds the GIL, which guards the table.
Rule rule_of(const Node& node) {
  static std::unordered_map<const std::type_info*, Rule> rules;
  const auto [entry, is_new] = rules.try_emplace(&typeid(node));
  if (is_new) entry->second = find_rule(node.name());
  return entry->second;
}

// A Function of Python. Compiled regions and reentrant checkpoints are such, too.
bool is_custom(const Node& node) {
  const std::string_view type = typeid(node).name();  // torch does not export it
  if (type.find("autograd6PyNode") == std::string_view::npos) return false;
  const std::string name = node.name();
  return name.find("CompiledFunction") == std::string::npos &&
         name.find("CheckpointFunction") == std::string::npos;
}

}  // namespace

Rows rows_after(const RowStep& step) {
  if (const Rule rule = rule_of(step.node)) return rule(step) ? Rows::kKept : Rows::kMixed;
  if (!is_custom(step.node)) return Rows::kUnknown;
  return same_rows(step) ? Rows::kCustom : Rows::kMixed;
}

}  // namespace ganloss
