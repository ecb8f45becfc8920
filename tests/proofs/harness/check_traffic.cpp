// Counts the bytes that the kernels move and the width of every access, element by element.
//
// The compiler calls __tsan_read16(address) and the like before every access, as it does for
// ThreadSanitizer; here they are not its runtime's but ours, and count. Unoptimised, so that an
// access in the source is one access. Counted is what goes to the tensors of the length of the
// data: what threads share (norms, partial sums, scalars) is little, and cached.
//
// A line for each call and dtype:  call, dtype, launches, bytes read and bytes written for an
// element in accesses of 16 bytes, and all bytes in narrower ones.
#include "check.h"
#include "device.h"

#define UNCOUNTED __attribute__((no_sanitize_thread, noinline))

namespace {

struct Range {
  const char* begin;
  const char* end;
};
Range watched[8];
int watched_count = 0;
int64_t bytes_read = 0, bytes_written = 0, narrow = 0;  // bytes

UNCOUNTED void count(const void* address, int64_t bytes, int64_t* total) {
  const char* first = static_cast<const char*>(address);
  for (int i = 0; i < watched_count; ++i)
    if (watched[i].begin <= first && first < watched[i].end)
      (bytes == 16 ? *total : narrow) += bytes;
}

}  // namespace

#define COUNT_ACCESSES(bytes)                             \
  UNCOUNTED void __tsan_read##bytes(void* p) {            \
    count(p, bytes, &bytes_read);                         \
  }                                                       \
  UNCOUNTED void __tsan_write##bytes(void* p) {           \
    count(p, bytes, &bytes_written);                      \
  }                                                       \
  UNCOUNTED void __tsan_unaligned_read##bytes(void* p) {  \
    count(p, bytes, &bytes_read);                         \
  }                                                       \
  UNCOUNTED void __tsan_unaligned_write##bytes(void* p) { \
    count(p, bytes, &bytes_written);                      \
  }

extern "C" {
COUNT_ACCESSES(1)
COUNT_ACCESSES(2)
COUNT_ACCESSES(4)
COUNT_ACCESSES(8)
COUNT_ACCESSES(16)
UNCOUNTED void __tsan_read_range(void* p, size_t bytes) {
  count(p, static_cast<int64_t>(bytes), &bytes_read);
}
UNCOUNTED void __tsan_write_range(void* p, size_t bytes) {
  count(p, static_cast<int64_t>(bytes), &bytes_written);
}
UNCOUNTED void __tsan_init() {}
UNCOUNTED void __tsan_func_entry(void*) {}
UNCOUNTED void __tsan_func_exit() {}
UNCOUNTED void __tsan_vptr_update(void**, void*) {}
// Guards of static variables, and reference counts.
UNCOUNTED uint8_t __tsan_atomic8_load(const volatile uint8_t* p, int) {
  return *p;
}
UNCOUNTED uint64_t __tsan_atomic64_load(const volatile uint64_t* p, int) {
  return *p;
}
// The ticket.
UNCOUNTED int __tsan_atomic32_fetch_add(volatile int* p, int value, int) {
  const int before = *p;
  *p = before + value;
  return before;
}
}

using namespace check;
using namespace ganloss;
using cuda::OperandB;

namespace {

constexpr int64_t kRows = 4, kLength = 4096;  // full tiles of every dtype
constexpr int64_t kCount = kRows * kLength;

// The operands of a call, of which those of the length of the data are watched.
struct Operands {
  explicit Operands(Dtype dtype)
      : dtype(dtype), compute(dtype == Dtype::kDouble ? Dtype::kDouble : Dtype::kFloat) {
    watched_count = 0;
  }
  void* watch(Dtype of) {
    buffers.emplace_back(of, kCount).fill(0.5);
    char* data = static_cast<char*>(buffers.back().data());
    watched[watched_count++] = {data, data + kCount * bytes_of(of)};
    return data;
  }
  void* data() { return watch(dtype); }
  void* data_in_compute() { return watch(compute); }
  void* small(int64_t count = 1) { return buffers.emplace_back(compute, count).fill(0.5).data(); }
  void* workspace(int64_t bytes) { return buffers.emplace_back(dirty_workspace(bytes)).data(); }

  Dtype dtype, compute;
  std::vector<Buffer> buffers;
};

template <typename Launch>
void measure(const char* call, Dtype dtype, Launch&& launch) {
  const long launches = harness::Device::instance().launches;
  bytes_read = bytes_written = narrow = 0;
  launch();
  std::printf("%s;%s;%ld;%g;%g;%ld\n", call, name_of(dtype),
              harness::Device::instance().launches - launches,
              static_cast<double>(bytes_read) / kCount, static_cast<double>(bytes_written) / kCount,
              static_cast<long>(narrow));
}

constexpr int kSoftplus = 0, kLinear = 3;  // terms

void measure_loss(Dtype dtype, const char* operands, bool has_b, bool weighted,
                  int term = kSoftplus) {
  Operands of(dtype);
  cuda::SegmentArguments segment{};
  segment.a = of.data();
  segment.b = has_b ? of.data() : nullptr;
  segment.weight = weighted ? of.data_in_compute() : nullptr;
  segment.count = kCount;
  segment.term = {term, 1.0, 0.0};
  segment.scale = 1.0;
  segment.dtype = segment.b_dtype = dtype;
  segment.b_kind = has_b ? OperandB::kTensor : OperandB::kNone;
  cuda::LossCall call{&segment, 1, dtype == Dtype::kDouble, 2};
  call.cut = cuda::cut_of(call);
  call.workspace = of.workspace(call.cut.workspace_bytes);
  call.ticket = &ticket;
  void *total = of.small(), *values = of.small(), *statistics = of.small(4);

  const auto named = [&](const char* op) {
    return std::string(op) + "(" + operands + ")" + (term == kLinear ? " of a linear term" : "");
  };
  if (term == kSoftplus) {  // the forwards of all terms read alike
    measure(named("multi_tensor_loss").c_str(), dtype,
            [&] { cuda::multi_tensor_loss(call, total, values, nullptr); });
    measure(named("multi_tensor_loss with statistics").c_str(), dtype,
            [&] { cuda::multi_tensor_loss(call, total, values, statistics); });
  }
  segment.grad_a = of.data();
  segment.grad_b = has_b ? of.data() : nullptr;
  measure(named("multi_tensor_loss_backward").c_str(), dtype,
          [&] { cuda::multi_tensor_loss_backward(call, total, nullptr); });
  segment.va = of.data();
  segment.vb = has_b ? of.data() : nullptr;
  measure(named("multi_tensor_loss_double_backward").c_str(), dtype, [&] {
    cuda::multi_tensor_loss_double_backward(call, total, nullptr, statistics, values);
  });
}

void measure_batch(Dtype dtype, const char* shape, int64_t rows) {
  const auto named = [&](const char* op) { return std::string(op) + ", " + shape; };
  const auto call_of = [&] { return cuda::BatchCall{rows, kCount / rows, dtype, 2}; };
  {
    Operands of(dtype);
    void *real = of.data(), *fake = of.data(), *out = of.data(), *alpha = of.small(rows);
    measure(named("interpolate").c_str(), dtype,
            [&] { cuda::interpolate(call_of(), fake, real, alpha, false, out); });
  }
  Operands of(dtype);
  const cuda::Penalty penalty{math::PenaltyMode::kTwoSided, 1.0, 10.0};
  cuda::BatchCall call = call_of();
  void *gradient = of.data(), *direction = of.data(), *out = of.data();
  void *result = of.small(), *incoming = of.small(), *norms = of.small(rows);
  void* dots = of.small(rows);
  call.workspace = of.workspace(cuda::batch_workspace_bytes(call));
  call.ticket = &ticket;
  measure(named("norm_penalty").c_str(), dtype,
          [&] { cuda::norm_penalty(call, penalty, gradient, result, norms); });
  measure(named("norm_penalty_backward").c_str(), dtype,
          [&] { cuda::norm_penalty_backward(call, penalty, incoming, gradient, norms, out); });
  measure(named("norm_penalty_double_backward").c_str(), dtype, [&] {
    cuda::norm_penalty_double_backward(call, penalty, direction, incoming, gradient, norms, dots,
                                       result, out);
  });
}

void measure_alpha_of_elements(Dtype dtype) {
  Operands of(dtype);
  const cuda::BatchCall call{1, kCount, dtype, 2};
  void *real = of.data(), *fake = of.data(), *out = of.data(), *alpha = of.data_in_compute();
  measure("interpolate with an alpha for each element", dtype,
          [&] { cuda::interpolate(call, fake, real, alpha, true, out); });
}

void measure_noise(Dtype dtype) {
  Operands of(dtype);
  const cuda::BatchCall call{1, kCount, dtype, 2};
  void *inputs = of.data(), *out = of.data();
  const int64_t seed = 7;
  measure("perturb", dtype, [&] { cuda::perturb(call, inputs, 0.5, &seed, out); });
}

}  // namespace

int main() {
  for (Dtype dtype : {Dtype::kFloat, Dtype::kHalf, Dtype::kBFloat16, Dtype::kDouble}) {
    measure_loss(dtype, "a", false, false);
    measure_loss(dtype, "a, w", false, true);
    measure_loss(dtype, "a, b", true, false);
    measure_loss(dtype, "a, b, w", true, true);
    measure_loss(dtype, "a, w", false, true, kLinear);
    measure_loss(dtype, "a, b", true, false, kLinear);
    measure_batch(dtype, "wide rows", kRows);
    measure_batch(dtype, "narrow rows", kCount / 64);
    measure_alpha_of_elements(dtype);
    measure_noise(dtype);
  }
  return 0;
}
