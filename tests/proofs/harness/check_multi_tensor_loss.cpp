// Runs the multi_tensor_loss kernels on the CPU and compares with float64 formulas, element by
// element. Built plain, under AddressSanitizer + UBSan, and under ThreadSanitizer.
//
//   check_multi_tensor_loss          every operand, dtype and size
//   check_multi_tensor_loss small    few blocks, for ThreadSanitizer
//   check_multi_tensor_loss huge     elements beyond 2^31
#include <sys/mman.h>

#include <cstring>

#include "check.h"
#include "device.h"

using namespace check;
using namespace ganloss;
using cuda::OperandB;
using cuda::SegmentArguments;

namespace {

std::mt19937 random_numbers(1);

constexpr Dtype kDtypes[] = {Dtype::kFloat, Dtype::kHalf, Dtype::kBFloat16};
constexpr double kParameters[][2] = {{-1.0, 0.0}, {1.0, 1.0}, {0.25, 0.0}, {0.0, 0.0}, {0.0, 0.0}};
static_assert(std::size(kParameters) == math::kTermCount, "a term has no parameters here");

struct TestSegment {
  Buffer a, b, weight, va, vb, grad_a, grad_b;
  OperandB b_kind;
  math::TermSpec term;
  double scale;

  SegmentArguments arguments(bool with_gradients, bool with_directions) const {
    const auto at = [](const Buffer& buffer, bool use) { return use ? buffer.data() : nullptr; };
    const bool has_b = b_kind != OperandB::kNone;
    return {a.data(),
            at(b, has_b),
            weight.data(),
            at(grad_a, with_gradients),
            at(grad_b, with_gradients && has_b),
            at(va, with_directions),
            at(vb, with_directions && has_b),
            a.count(),
            term,
            scale,
            a.dtype(),
            b_kind,
            b.dtype()};
  }
  double z(int64_t i) const {
    return a.get(i) - (b_kind == OperandB::kTensor   ? b.get(i)
                       : b_kind == OperandB::kScalar ? b.get(0)
                                                     : 0.0);
  }
  double v(int64_t i) const {
    return va.get(i) - (b_kind == OperandB::kTensor   ? vb.get(i)
                        : b_kind == OperandB::kScalar ? vb.get(0)
                                                      : 0.0);
  }
  double w(int64_t i) const { return weight.data() ? weight.get(i) : 1.0; }
  template <typename Visitor>
  double of_term(Visitor&& visitor) const {
    return math::visit_term<double>(term, visitor);
  }
};

// Offsets beyond a boundary differ between operands where `aligned` is false.
TestSegment make_segment(Dtype dtype, int64_t count, int term, OperandB b_kind, bool weighted,
                         int offset, bool aligned) {
  const bool is_double = dtype == Dtype::kDouble;
  const Dtype compute = is_double ? Dtype::kDouble : Dtype::kFloat;
  const int other = aligned ? offset : offset + 1;
  const int64_t b_count = b_kind == OperandB::kTensor ? count : 1;
  const Dtype b_dtype = b_kind == OperandB::kTensor ? dtype : compute;
  TestSegment segment;
  segment.a = Buffer(dtype, count, offset).randomize(random_numbers);
  segment.b = Buffer(b_dtype, b_count, other).randomize(random_numbers);
  segment.va = Buffer(dtype, count, offset).randomize(random_numbers);
  segment.vb = Buffer(b_dtype, b_count, other).randomize(random_numbers);
  segment.grad_a = Buffer(dtype, count, other).fill(-77);
  segment.grad_b = Buffer(b_dtype, b_count, offset).fill(-77);
  // The boundary of weights lies elsewhere: they are wider than half precision.
  if (weighted) {
    const int weight_offset = compute == dtype ? offset : offset == 0 ? 0 : 4 - (8 - offset) % 4;
    segment.weight = Buffer(compute, count, weight_offset % 4).randomize(random_numbers, 1.0);
    for (int64_t i = 0; i < count; i += 3) segment.weight.set(i, 0.0);
    if (count > 3) segment.a.set(3, INFINITY);  // masked: must not become NaN
  }
  segment.b_kind = b_kind;
  segment.term = {term, kParameters[term][0], kParameters[term][1]};
  segment.scale = 0.5 + term;
  return segment;
}

struct Expected {
  double value, contraction, sum, second_sum;
};

// Runs all three kernels on a list and checks everything that they write.
void check_list(std::vector<TestSegment>& segments, bool is_double, int multiprocessors) {
  const int size = static_cast<int>(segments.size());
  const Dtype dtype = is_double ? Dtype::kDouble : Dtype::kFloat;
  Buffer total(dtype, 1), values(dtype, size), statistics(dtype, 4 * size);
  Buffer grad_total(dtype, 1), grad_values(dtype, size);
  Buffer second_total(dtype, 1), second_values(dtype, size);
  grad_total.set(0, 0.75);
  grad_values.randomize(random_numbers, 1.0);
  const double epsilon = 40 * epsilon_of(dtype);

  const auto run = [&](bool gradients, bool directions, auto&& launch) {
    std::vector<SegmentArguments> arguments;
    for (const TestSegment& s : segments) arguments.push_back(s.arguments(gradients, directions));
    cuda::LossCall call{arguments.data(), size, is_double, multiprocessors};
    call.cut = cuda::cut_of(call);
    const Buffer workspace = dirty_workspace(call.cut.workspace_bytes);
    call.workspace = workspace.data();
    call.ticket = &ticket;
    launch(call);
    expect_close("ticket", 0, ticket, 0, 0, 0);
  };

  run(false, false, [&](const cuda::LossCall& call) {
    cuda::multi_tensor_loss(call, total.data(), values.data(), statistics.data());
  });
  const Buffer values_again(dtype, size), total_again(dtype, 1);
  run(false, false, [&](const cuda::LossCall& call) {
    cuda::multi_tensor_loss(call, total_again.data(), values_again.data(), nullptr);
  });

  double expected_total = 0.0, expected_second = 0.0;
  std::vector<double> factors(size);
  for (int s = 0; s < size; ++s) {
    const TestSegment& segment = segments[s];
    const double n = static_cast<double>(segment.a.count());
    // Of no elements every mean is NaN.
    const double none = n == 0 ? NAN : 0.0;
    double value = 0, magnitude = 0, mean = none, squares = none, sign = none, nonfinite = 0;
    double contraction = 0, contraction_magnitude = 0;
    factors[s] = (0.75 * segment.scale + grad_values.get(s)) / n;
    for (int64_t i = 0; i < segment.a.count(); ++i) {
      const double x = segment.a.get(i);
      if (segment.w(i) != 0) {
        const double z = segment.z(i);
        const double term = segment.w(i) * segment.of_term([&](auto t) { return t.value(z); });
        const double slope =
            segment.w(i) * segment.of_term([&](auto t) { return t.slope(z, 1.0); });
        value += term;
        magnitude += std::fabs(term);
        contraction += slope * segment.v(i);
        contraction_magnitude += std::fabs(slope * segment.v(i));
      }
      mean += x / n;
      squares += x * x / n;
      sign += ((x > 0) - (x < 0)) / n;
      nonfinite += !std::isfinite(x);
    }
    const double deviation = std::sqrt(squares - mean * mean);
    expect_close("values", s, values.get(s), value / n, epsilon, magnitude / n);
    expect_close("statistics.mean", s, statistics.get(4 * s), mean, epsilon, 2.0);
    expect_close("statistics.deviation", s, statistics.get(4 * s + 1), deviation, 10 * epsilon,
                 2.0);
    expect_close("statistics.sign", s, statistics.get(4 * s + 2), sign, epsilon, 1.0);
    expect_close("statistics.nonfinite", s, statistics.get(4 * s + 3), nonfinite, 0, 0);
    expect_close("values without statistics", s, values_again.get(s), values.get(s), 0, 0);
    expected_total += segment.scale * values.get(s);
    expected_second += segment.scale * contraction / n;
    second_values.set(s, contraction / n);  // kept for the comparison below
    statistics.set(4 * s, contraction_magnitude / n);
  }
  expect_close("total", 0, total.get(0), expected_total, epsilon, 10.0);
  expect_close("total again", 0, total_again.get(0), total.get(0), 0, 0);

  const auto check_gradients = [&](const char* what, auto&& per_element) {
    for (int s = 0; s < size; ++s) {
      const TestSegment& segment = segments[s];
      double sum = 0, magnitude = 0;
      const double rounding = epsilon + 1.01 * epsilon_of(segment.a.dtype());
      const double tiny = segment.a.dtype() == Dtype::kHalf ? 1e-4 : 1e-30;  // subnormal halves
      for (int64_t i = 0; i < segment.a.count(); ++i) {
        const double expected = segment.w(i) == 0 ? 0.0 : per_element(segment, i) * factors[s];
        sum += expected;
        magnitude += std::fabs(expected);
        expect_close(what, i, segment.grad_a.get(i), expected, rounding, tiny);
        if (segment.b_kind == OperandB::kTensor)
          expect_close(what, i, segment.grad_b.get(i), -expected, rounding, tiny);
      }
      if (segment.b_kind == OperandB::kScalar)
        expect_close(what, -1, segment.grad_b.get(0), -sum, epsilon, magnitude);
    }
  };

  run(true, false, [&](const cuda::LossCall& call) {
    cuda::multi_tensor_loss_backward(call, grad_total.data(), grad_values.data());
  });
  check_gradients("gradient", [](const TestSegment& segment, int64_t i) {
    const double z = segment.z(i);
    return segment.w(i) * segment.of_term([&](auto term) { return term.slope(z, 1.0); });
  });

  Buffer got_total(dtype, 1), got_values(dtype, size);
  run(true, true, [&](const cuda::LossCall& call) {
    cuda::multi_tensor_loss_double_backward(call, grad_total.data(), grad_values.data(),
                                            got_total.data(), got_values.data());
  });
  for (int s = 0; s < size; ++s)
    expect_close("grad grad values", s, got_values.get(s), second_values.get(s), epsilon,
                 statistics.get(4 * s));
  expect_close("grad grad total", 0, got_total.get(0), expected_second, epsilon, 20.0);
  check_gradients("second gradient", [](const TestSegment& segment, int64_t i) {
    const double z = segment.z(i);
    return segment.w(i) * segment.v(i) *
           segment.of_term([&](auto term) { return term.curvature(z); });
  });
}

// A list with every kind of b, with and without weights, of the given sizes.
void check_sizes(Dtype dtype, std::initializer_list<int64_t> sizes, int offset, bool aligned,
                 int multiprocessors) {
  std::vector<TestSegment> list;
  int term = 0;
  for (int64_t count : sizes) {
    const auto b_kind = static_cast<OperandB>(term % 3);
    list.push_back(make_segment(dtype, count, term % math::kTermCount, b_kind, term % 2 == 1,
                                offset, aligned));
    ++term;
  }
  check_list(list, dtype == Dtype::kDouble, multiprocessors);
}

// Gradients of the last elements of a segment of more than 2^31: one block of the launch runs, on
// memory of which only the pages that it touches exist.
void check_huge() {
  const int64_t n = (int64_t(1) << 31) + 5005;
  const auto reserve = [&] {
    void* memory = mmap(nullptr, n * 2, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) std::abort();
    return static_cast<__half*>(memory);
  };
  __half* a = reserve();
  __half* gradient = reserve();
  const int64_t first = n - 5000;
  for (int64_t i = first; i < n; ++i) a[i] = __float2half_rn(static_cast<float>(i % 7));
  const SegmentArguments segment{
      a, nullptr,       nullptr, gradient,     nullptr,         nullptr,      nullptr,
      n, {2, 1.0, 0.0}, 1.0,     Dtype::kHalf, OperandB::kNone, Dtype::kFloat};
  cuda::LossCall call{&segment, 1, false, 132};
  call.cut = cuda::cut_of(call);
  const float grad_total = static_cast<float>(n);
  harness::Device::instance().only_block = (n - 1) / call.cut.chunk;
  cuda::multi_tensor_loss_backward(call, &grad_total, nullptr);
  for (int64_t i = first; i < n; ++i)
    expect_close("gradient", i, __half2float(gradient[i]), 2.0 * (static_cast<double>(i % 7) - 1.0),
                 1e-3, 0.0);
}

// Blocks fill whole waves: what the device does in the time that it takes, of what it could do.
// Counts that made a few blocks more than fit, and lists whose last chunks are short.
void check_waves() {
  const int multiprocessors = 132;
  const int64_t wave = 4 * multiprocessors, tile = 2048;
  std::vector<std::vector<int64_t>> lists{{70'000'000}, {100'000'000}, {69'300'000, 900'000}};
  lists.push_back(std::vector<int64_t>(54, 1'300'000));
  for (int64_t tiles : {11, 12, 17, 33, 50, 64, 65, 100, 129, 1000})
    lists.push_back({tiles * wave * tile});
  for (const std::vector<int64_t>& counts : lists) {
    std::vector<SegmentArguments> segments;
    int64_t work = 0;
    for (int64_t count : counts) {
      segments.push_back({});
      segments.back().count = count;
      work += count;
    }
    const auto cut = cuda::cut_of(
        cuda::LossCall{segments.data(), static_cast<int>(counts.size()), false, multiprocessors});
    const int64_t waves = (cut.blocks + wave - 1) / wave;
    const double used = static_cast<double>(work) / static_cast<double>(waves * wave * cut.chunk);
    if (used < 0.9) expect_close("share of whole waves", counts[0], used, 1.0, 0.1, 0.0);
  }
}

// The smallest list that holds the segments is the one that is passed. No block runs.
void check_argument_bytes() {
  harness::Device& device = harness::Device::instance();
  device.only_block = 1 << 30;
  float incoming = 0, gradient = 0;
  for (const auto& [count, forward, backward] : {std::tuple<int, size_t, size_t>{2, 1024, 1024},
                                                 {12, 1024, 4096},
                                                 {54, 4096, 8192},
                                                 {120, 8192, 32764},
                                                 {400, 32764, 32764}}) {
    SegmentArguments segment{};
    segment.count = 1;
    segment.grad_a = &gradient;
    const std::vector<SegmentArguments> segments(count, segment);
    cuda::LossCall call{segments.data(), count, false, 132};
    call.cut = cuda::cut_of(call);
    const auto expect = [&](const char* what, size_t most) {
      const auto bytes = static_cast<double>(device.last_argument_bytes);
      if (bytes > most || bytes < most / 8) expect_close(what, count, bytes, most, 0.0, 0.0);
    };
    cuda::multi_tensor_loss(call, nullptr, nullptr, nullptr);
    expect("bytes of arguments forward", forward);
    cuda::multi_tensor_loss_backward(call, &incoming, nullptr);
    expect("bytes of arguments backward", backward);
  }
  device.only_block = -1;
}

// Every dtype, and every way in which blocks and launches meet, in few blocks.
void check_small() {
  // Several blocks of one segment, and several segments, at one ticket.
  std::vector<TestSegment> mixed;
  mixed.push_back(make_segment(Dtype::kHalf, 4097, 0, OperandB::kTensor, true, 0, true));
  mixed.push_back(make_segment(Dtype::kFloat, 301, 1, OperandB::kScalar, false, 1, true));
  mixed.push_back(make_segment(Dtype::kBFloat16, 2055, 4, OperandB::kScalar, true, 0, false));
  check_list(mixed, false, 1);
  check_sizes(Dtype::kDouble, {2051, 7, 1030}, 1, true, 1);
  // Several launches of one call. An empty segment takes a row of the list and no block.
  std::vector<TestSegment> long_list;
  for (int s = 0; s < 560; ++s)
    long_list.push_back(make_segment(Dtype::kFloat, s % 150 == 149 ? 5 : 0, s % math::kTermCount,
                                     OperandB::kScalar, false, 0, true));
  check_list(long_list, false, 1);
}

}  // namespace

int main(int count, char** arguments) {
  const char* mode = count > 1 ? arguments[1] : "all";
  if (!std::strcmp(mode, "huge")) {
    check_huge();
    return report();
  }
  if (!std::strcmp(mode, "small")) {
    check_small();
    return report();
  }
  check_waves();
  check_argument_bytes();
  for (Dtype dtype : {Dtype::kFloat, Dtype::kHalf, Dtype::kBFloat16, Dtype::kDouble}) {
    check_sizes(dtype, {0, 1, 2, 7, 8, 127, 2047}, 0, true, 2);
    check_sizes(dtype, {2048, 2049, 4099, 5000, 9001, 1024}, 0, true, 2);
    check_sizes(dtype, {1, 5, 2051, 4103, 2048, 2053}, 1, true, 2);    // unaligned, but alike
    check_sizes(dtype, {3, 2060, 5003, 2048, 2049, 17}, 0, false, 2);  // and against each other
  }
  // One launch for mixed dtypes, in lists of every size; and beyond what 32 KiB of arguments hold.
  for (int length : {12, 50, 70, 150, 560}) {
    std::vector<TestSegment> list;
    for (int s = 0; s < length; ++s)
      list.push_back(make_segment(kDtypes[s % 3], s % 41, s % math::kTermCount,
                                  static_cast<OperandB>(s % 3), s % 5 == 0, 0, true));
    check_list(list, false, 2);
  }
  return report();
}
