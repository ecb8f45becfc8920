#include "launch.h"

#include <ATen/EmptyTensor.h>
#include <c10/util/Exception.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstdlib>

namespace ganloss::cpu {

namespace {

// One piece is 64 KiB of float32: it stays in the second-level cache between the two kernels
// that may visit it, and a hundred thousand elements still spread over several threads.
constexpr int64_t kPiece = 16384;

// glibc takes blocks above 32 MB fresh from the kernel every time; huge pages make that 512
// times fewer faults. Below, the hint changes nothing.
constexpr int64_t kHugePageBytes = int64_t(2) << 20;
constexpr int64_t kWorthHugePages = int64_t(4) << 20;

std::vector<const Kernels*> supported_kernels() {
  std::vector<const Kernels*> found = {&kBaseKernels};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("f16c"))
    found.push_back(&kAvx2Kernels);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
    found.push_back(&kAvx512Kernels);
#endif
  return found;
}

const Kernels* find_kernels(const std::string& isa) {
  std::string names;
  for (const Kernels* candidate : supported_kernels()) {
    if (isa == candidate->isa) return candidate;
    names += (names.empty() ? "" : ", ") + std::string(candidate->isa);
  }
  TORCH_CHECK_VALUE(false, "isa: expected one that this processor has (", names, "), got '", isa,
                    "'");
}

const Kernels*& current() {
  static const Kernels* chosen = [] {
    const char* isa = std::getenv("GANLOSS_FAST_CPU_ISA");
    return isa && *isa ? find_kernels(isa) : supported_kernels().back();
  }();
  return chosen;
}

}  // namespace

const Kernels& kernels() {
  return *current();
}

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Kernels* candidate : supported_kernels()) names.emplace_back(candidate->isa);
  return names;
}

void select_isa(const std::string& isa) {
  current() = find_kernels(isa);
}

std::vector<Piece> cut_rows(at::IntArrayRef lengths) {
  std::vector<Piece> pieces;
  pieces.reserve(lengths.size());
  for (size_t row = 0; row < lengths.size(); ++row)
    for (int64_t offset = 0; offset < lengths[row]; offset += kPiece)
      pieces.push_back(
          {static_cast<int64_t>(row), offset, std::min(kPiece, lengths[row] - offset)});
  return pieces;
}

std::vector<Band> cut_batch(int64_t rows, int64_t length) {
  std::vector<Band> bands;
  if (length <= kPiece) {
    const int64_t together = kPiece / std::max<int64_t>(1, length);
    for (int64_t row = 0; row < rows; row += together)
      bands.push_back({row, row * length, {std::min(together, rows - row), length}});
    return bands;
  }
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t offset = 0; offset < length; offset += kPiece)
      bands.push_back({row, row * length + offset, {1, std::min(kPiece, length - offset)}});
  return bands;
}

at::Tensor empty_small(at::IntArrayRef sizes, at::ScalarType dtype) {
  return at::detail::empty_cpu(sizes, dtype);
}

at::Tensor empty_output(at::IntArrayRef sizes, at::IntArrayRef strides, at::ScalarType dtype) {
  at::Tensor output = at::detail::empty_strided_cpu(sizes, strides, dtype);
#if defined(__linux__)
  const auto bytes = static_cast<int64_t>(output.nbytes());
  if (bytes >= kWorthHugePages) {
    const auto begin = reinterpret_cast<uintptr_t>(output.data_ptr());
    const uintptr_t first = (begin + kHugePageBytes - 1) & ~uintptr_t(kHugePageBytes - 1);
    const uintptr_t last = (begin + bytes) & ~uintptr_t(kHugePageBytes - 1);
    if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
  }
#endif
  return output;
}

double scalar_value(const at::Tensor& tensor) {
  // A lazy negation is not in memory.
  return tensor.is_neg() ? -element(tensor, 0) : element(tensor, 0);
}

double element(const at::Tensor& tensor, int64_t offset) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return tensor.const_data_ptr<float>()[offset];
    case at::kDouble:
      return tensor.const_data_ptr<double>()[offset];
    case at::kHalf:
      return tensor.const_data_ptr<at::Half>()[offset];
    default:
      return tensor.const_data_ptr<at::BFloat16>()[offset];
  }
}

std::vector<double> to_doubles(const at::Tensor& tensor) {
  const at::Tensor values = tensor.to(at::kDouble).contiguous();
  const double* begin = values.const_data_ptr<double>();
  return {begin, begin + values.numel()};
}

}  // namespace ganloss::cpu
