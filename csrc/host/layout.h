// Memory layouts: kernels walk memory, so every operand of a call must have one memory order.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/empty_strided.h>

namespace ganloss {

inline bool same_layout(const at::Tensor& x, const at::Tensor& y) {
  for (int64_t d = 0; d < x.dim(); ++d)
    if (x.size(d) > 1 && x.stride(d) != y.stride(d)) return false;
  return true;
}

// A tensor whose elements fill one block of memory: itself, or a copy.
inline at::Tensor dense(const at::Tensor& tensor) {
  if (tensor.is_non_overlapping_and_dense()) return tensor;
  return at::empty_like(tensor).copy_(tensor);
}

// Dense, and every sample is one block of memory.
inline at::Tensor dense_by_sample(const at::Tensor& tensor) {
  const bool by_sample = tensor.size(0) <= 1 || tensor.numel() == 0 ||
                         tensor.stride(0) == tensor.numel() / tensor.size(0);
  return by_sample && tensor.is_non_overlapping_and_dense() ? tensor : tensor.contiguous();
}

// The elements of `tensor` in the memory order of `like`: itself, or a copy.
inline at::Tensor in_layout_of(const at::Tensor& tensor, const at::Tensor& like) {
  if (same_layout(tensor, like)) return tensor;
  return at::empty_strided(like.sizes(), like.strides(), tensor.options()).copy_(tensor);
}

// The result of a kernel that ran on `used`, a reordered copy of `original` or itself, with the
// strides that empty_like(original) has, which is what the fake kernels promise.
inline at::Tensor restore_layout(const at::Tensor& result, const at::Tensor& used,
                                 const at::Tensor& original) {
  if (used.is_same(original)) return result;
  return at::empty_like(original).copy_(result);
}

// Byte address of element `offset`, in memory order.
inline const void* at_offset(const at::Tensor& tensor, int64_t offset) {
  return static_cast<const char*>(tensor.const_data_ptr()) + offset * tensor.element_size();
}
inline void* at_offset_mutable(const at::Tensor& tensor, int64_t offset) {
  return static_cast<char*>(tensor.data_ptr()) + offset * tensor.element_size();
}

}  // namespace ganloss
