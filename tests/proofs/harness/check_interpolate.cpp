// Runs the kernels of interpolate on the CPU and compares with float64 formulas.
//
//   check_interpolate [small]      small: few blocks, for ThreadSanitizer
#include <cstring>

#include "batches.h"
#include "math/interpolation.h"

using namespace check;
using namespace ganloss;

namespace {

void check_interpolate(const Batch& batch, bool per_element, int multiprocessors) {
  const int64_t n = batch.rows * batch.length;
  Buffer fake = batch.images(true), real = batch.images(false), out = batch.images(true);
  Buffer alpha(batch.compute(), per_element ? n : batch.rows);
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  for (int64_t i = 0; i < alpha.count(); ++i) alpha.set(i, uniform(random_numbers));
  if (n > 0) alpha.set(0, 1.0);
  cuda::BatchCall call = batch.call(multiprocessors);
  if (per_element) {
    call.rows = 1;
    call.length = n;
  }
  cuda::interpolate(call, fake.data(), real.data(), alpha.data(), per_element, out.data());
  for (int64_t i = 0; i < n; ++i) {
    const double weight = alpha.get(per_element ? i : i / batch.length);
    const double expected = math::interpolate(fake.get(i), real.get(i), weight);
    expect_close("interpolate", i, out.get(i), expected, 1.01 * epsilon_of(batch.dtype),
                 8 * epsilon_of(batch.compute()) / epsilon_of(batch.dtype) * 10);
  }
}

}  // namespace

int main(int count, char** arguments) {
  const bool small = count > 1 && !std::strcmp(arguments[1], "small");
  if (small) {
    check_interpolate({Dtype::kFloat, 3, 2100, 0, true}, false, 1);    // wide rows
    check_interpolate({Dtype::kBFloat16, 70, 24, 0, true}, false, 1);  // narrow rows
    check_interpolate({Dtype::kDouble, 70, 3, 0, false}, false, 1);    // without words
    check_interpolate({Dtype::kHalf, 2, 2100, 0, true}, true, 1);      // an alpha for each element
    return report();
  }
  for_each_batch([](const Batch& batch) {
    check_interpolate(batch, false, 2);
    check_interpolate(batch, true, 2);
  });
  return report();
}
