// Runs the noise kernel on the CPU and compares with float64 formulas, and the random words with
// the published ones.
//
//   check_perturb [small]      small: few blocks, for ThreadSanitizer
#include <sys/mman.h>

#include <cstring>

#include "check.h"
#include "device.h"
#include "math/philox.h"

using namespace check;
using namespace ganloss;

namespace {

std::mt19937 random_numbers(3);

// Random123's known answers for Philox4x32-10.
void check_words() {
  const struct {
    math::PhiloxWords counter;
    uint64_t key;
    math::PhiloxWords words;
  } known[] = {
      {{{0, 0, 0, 0}}, 0, {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}}},
      {{{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}},
       0xffffffffffffffff,
       {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}}},
      {{{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}},
       0x299f31d0a4093822,
       {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}},
  };
  for (const auto& answer : known) {
    const math::PhiloxWords words = math::philox(answer.counter, answer.key);
    for (int k = 0; k < 4; ++k) expect_close("word", k, words.word[k], answer.words.word[k], 0, 0);
  }
}

// In the precision of the kernel but for the arithmetic: a uniform is rounded to it.
double noise_of(Dtype dtype, uint64_t seed, int64_t index) {
  const auto block = static_cast<uint64_t>(index / 4);
  if (dtype == Dtype::kDouble) {
    double normals[4];
    math::philox_normals(seed, block, normals);
    return normals[index % 4];
  }
  const math::PhiloxWords words = math::words_of_block(seed, block);
  const int pair = static_cast<int>(index % 4 / 2) * 2;
  double sine, cosine;
  math::sine_cosine<double>(math::uniform<float>(words.word[pair + 1]), &sine, &cosine);
  const double radius = std::sqrt(-2 * std::log(math::uniform<float>(words.word[pair])));
  return radius * (index % 2 ? cosine : sine);
}

void check_perturb(Dtype dtype, int64_t count, int offset, int offset_of_out, int multiprocessors) {
  Buffer inputs = Buffer(dtype, count, offset).randomize(random_numbers);
  Buffer out(dtype, count, offset_of_out);
  const int64_t seed = -1234567890123456789;
  const double sigma = 0.5;
  const cuda::BatchCall call{1, count, dtype, multiprocessors};
  cuda::perturb(call, inputs.data(), sigma, &seed, out.data());
  const double of_type = 1.01 * epsilon_of(dtype);
  const double arithmetic = 10 * epsilon_of(dtype == Dtype::kDouble ? dtype : Dtype::kFloat);
  for (int64_t i = 0; i < count; ++i) {
    const double noise = sigma * noise_of(dtype, static_cast<uint64_t>(seed), i);
    expect_close("perturb", i, out.get(i), inputs.get(i) + noise, of_type,
                 std::fabs(noise) * arithmetic / of_type);
  }
}

// The last of more than 2^34 elements, whose blocks of noise have numbers beyond 2^32: one block
// of the launch runs, on memory of which only the pages that it touches exist.
void check_huge() {
  const int64_t n = (int64_t(1) << 34) + 2005;
  const auto reserve = [&] {
    void* memory = mmap(nullptr, n * 2, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) std::abort();
    return static_cast<__half*>(memory);
  };
  __half* inputs = reserve();
  __half* out = reserve();
  const int64_t first = n - 2005;
  for (int64_t i = first; i < n; ++i) inputs[i] = __float2half_rn(static_cast<float>(i % 7));
  const int64_t seed = 42;
  const cuda::BatchCall call{1, n, Dtype::kHalf, 1 << 22};  // one round a thread
  harness::Device& device = harness::Device::instance();
  device.only_block = first / (256 * 8);
  cuda::perturb(call, inputs, 0.5, &seed, out);
  device.only_block = -1;
  for (int64_t i = first; i < n; ++i)
    expect_close("element beyond 2^34", i, __half2float(out[i]),
                 static_cast<double>(i % 7) + 0.5 * noise_of(Dtype::kHalf, seed, i), 5e-4, 1e-2);
  munmap(inputs, n * 2);
  munmap(out, n * 2);
}

}  // namespace

int main(int count, char** arguments) {
  const bool small = count > 1 && !std::strcmp(arguments[1], "small");
  check_words();
  if (small) {
    check_perturb(Dtype::kFloat, 9001, 0, 0, 1);
    check_perturb(Dtype::kHalf, 5003, 1, 0, 1);
    return report();
  }
  for (Dtype dtype : {Dtype::kFloat, Dtype::kHalf, Dtype::kBFloat16, Dtype::kDouble})
    for (int64_t length : {0, 1, 3, 4, 5, 7, 8, 9, 2047, 2048, 2049, 40007})
      for (const auto& [offset, offset_of_out] : {std::pair{0, 0}, {1, 1}, {1, 0}, {0, 1}, {4, 4}})
        check_perturb(dtype, length, offset, offset_of_out, 2);
  check_huge();
  return report();
}
