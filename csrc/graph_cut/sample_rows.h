// Which operations of a critic keep the samples of a batch apart; see sample_rows.cpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/function.h>

#include <vector>

namespace ganloss {

// A tensor that comes from the samples going through an operation, as the forward's graph has it.
struct RowStep {
  torch::autograd::Node& node;  // the operation
  uint32_t edge;                // to what made its input
  at::IntArrayRef input, output;
  int64_t samples;
  // Indices of rows that the operation was given. It keeps the samples apart if each of them is
  // 0, 1, 2, ..., which is for the caller to see: their data may lie on a device.
  std::vector<at::Tensor>& row_indices;
};

enum class Rows {
  kKept,     // row r of the output comes from row r's sample alone
  kMixed,    // or it is not known
  kUnknown,  // an operation of which nothing is known
  kCustom,   // an autograd.Function of Python that has as many rows as its input
};

Rows rows_after(const RowStep& step);

}  // namespace ganloss
