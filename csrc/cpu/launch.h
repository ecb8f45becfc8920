// What the CPU ops share: the kernels of this machine, pieces and threads, memory.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "../host/dtype.h"
#include "../host/layout.h"
#include "kernels/kernels.h"

namespace ganloss::cpu {

// The kernels in use: the best that the processor runs, or those that GANLOSS_FAST_CPU_ISA names.
const Kernels& kernels();
std::vector<std::string> available_isas();
void select_isa(const std::string& isa);

// A run of elements within one segment.
struct Piece {
  int64_t row;
  int64_t offset;
  int64_t count;

  int64_t elements() const { return count; }
};

// Some rows of a batch, or a part of one.
struct Band {
  int64_t row;    // the first
  int64_t first;  // the first element, counted from the start of the batch
  Rows rows;

  int64_t elements() const { return rows.count * rows.length; }
};

// Segments cut into pieces of a fixed length, in order, and a batch into bands of about that many
// elements. The cut depends on the lengths alone, so a sum over pieces in index order is the same
// for any number of threads.
std::vector<Piece> cut_rows(at::IntArrayRef lengths);
std::vector<Band> cut_batch(int64_t rows, int64_t length);

// Waking a second thread costs 10 to 15 microseconds; below this many elements it does not pay.
inline constexpr int64_t kWorthThreads = 131072;

// Calls body(index) for every piece, or band, on several threads where that pays.
template <typename Any, typename Body>
void for_each_piece(const std::vector<Any>& pieces, const Body& body) {
  const auto count = static_cast<int64_t>(pieces.size());
  int64_t elements = 0;
  for (const Any& piece : pieces) elements += piece.elements();
  if (elements < kWorthThreads) {
    for (int64_t index = 0; index < count; ++index) body(index);
    return;
  }
  const int64_t grain = std::max<int64_t>(1, count * (kWorthThreads / 2) / elements);
  at::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) body(index);
  });
}

// A small contiguous output. Not at::empty: its trip through the dispatcher costs more than a
// whole loss of 64 logits.
at::Tensor empty_small(at::IntArrayRef sizes, at::ScalarType dtype);
// A dense output, for which huge pages are asked where they pay; or one like a dense tensor.
at::Tensor empty_output(at::IntArrayRef sizes, at::IntArrayRef strides, at::ScalarType dtype);
inline at::Tensor empty_output(const at::Tensor& like) {
  return empty_output(like.sizes(), like.strides(), like.scalar_type());
}

// The value of a one-element tensor of any floating dtype, and of an element in memory order.
double scalar_value(const at::Tensor& tensor);
double element(const at::Tensor& tensor, int64_t offset);
// The values of a tensor [n] of any floating dtype.
std::vector<double> to_doubles(const at::Tensor& tensor);

}  // namespace ganloss::cpu
