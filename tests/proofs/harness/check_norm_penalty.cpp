// Runs the kernels of norm_penalty on the CPU and compares with float64 formulas.
//
//   check_norm_penalty [small]      small: few blocks, for ThreadSanitizer
#include <cstring>

#include "batches.h"
#include "device.h"

using namespace check;
using namespace ganloss;

namespace {

void check_penalty(const Batch& batch, math::PenaltyMode mode, int multiprocessors) {
  const cuda::Penalty penalty{mode, 1.5, 10.0};
  const math::NormPenalty<double> formula{mode, 1.5};
  const double per_sample = penalty.scale / static_cast<double>(batch.rows);
  const double epsilon = 60 * epsilon_of(batch.compute());
  Buffer gradient = batch.images(true), direction = batch.images(false), out = batch.images(true);
  for (int64_t i = 0; i < batch.length && batch.rows > 1; ++i) gradient.set(i, 0.0);  // a dead row
  for (int64_t i = batch.length; i < 2 * batch.length && batch.rows > 2; ++i)
    gradient.set(i, 1e-16 * gradient.get(i));  // a norm whose cube is 0 in float32
  Buffer result(batch.compute(), 1), norms(batch.compute(), batch.rows);
  Buffer again(batch.compute(), 1), dots(batch.compute(), batch.rows);
  Buffer incoming(batch.compute(), 1), grad_grad(batch.compute(), 1);
  incoming.set(0, 0.7);

  cuda::BatchCall call = batch.call(multiprocessors);
  const auto with_workspace = [&](auto&& launch) {
    const Buffer workspace = dirty_workspace(cuda::batch_workspace_bytes(call));
    call.workspace = workspace.data();
    call.ticket = &ticket;
    launch();
    expect_close("ticket", 0, ticket, 0, 0, 0);
  };
  with_workspace(
      [&] { cuda::norm_penalty(call, penalty, gradient.data(), result.data(), norms.data()); });
  with_workspace(
      [&] { cuda::norm_penalty(call, penalty, gradient.data(), again.data(), norms.data()); });
  double sum = 0, contraction = 0, magnitude = 0;
  std::vector<double> norm(batch.rows, 0.0), dot(batch.rows, 0.0), dot_magnitude(batch.rows, 0.0);
  for (int64_t row = 0; row < batch.rows; ++row) {
    for (int64_t i = row * batch.length; i < (row + 1) * batch.length; ++i) {
      norm[row] += gradient.get(i) * gradient.get(i);
      dot[row] += gradient.get(i) * direction.get(i);
      dot_magnitude[row] += std::fabs(gradient.get(i) * direction.get(i));
    }
    norm[row] = std::sqrt(norm[row]);
    const double coefficient = formula.coefficient(norm[row]);
    magnitude += (2 + std::fabs(coefficient)) * per_sample * dot_magnitude[row];
    expect_close("norms", row, norms.get(row), norm[row], epsilon, 0);
    sum += formula.value(norm[row]) * per_sample;
    contraction += per_sample * coefficient * dot[row];
  }
  expect_close("penalty", 0, result.get(0), batch.rows ? sum : NAN, epsilon, 1.0);
  expect_close("penalty again", 0, again.get(0), result.get(0), 0, 0);
  if (batch.rows == 0) return;

  const double rounding = epsilon + 1.01 * epsilon_of(batch.dtype);
  const double tiny = batch.dtype == Dtype::kHalf ? 1e-3 : 1e-6;
  // Near the target the two halves of a coefficient cancel: the size of one sets the error.
  const auto expect = [&](const char* what, int64_t i, double expected, double uncancelled) {
    expect_close(what, i, out.get(i), expected, rounding,
                 tiny + std::fabs(uncancelled) * epsilon / rounding);
  };
  cuda::norm_penalty_backward(call, penalty, incoming.data(), gradient.data(), norms.data(),
                              out.data());
  for (int64_t i = 0; i < batch.rows * batch.length; ++i) {
    const double factor = 0.7 * per_sample * gradient.get(i);
    expect("penalty gradient", i, factor * formula.coefficient(norm[i / batch.length]), 2 * factor);
  }

  with_workspace([&] {
    cuda::norm_penalty_double_backward(call, penalty, direction.data(), incoming.data(),
                                       gradient.data(), norms.data(), dots.data(), grad_grad.data(),
                                       out.data());
  });
  expect_close("grad grad penalty", 0, grad_grad.get(0), contraction, epsilon, magnitude);
  for (int64_t i = 0; i < batch.rows * batch.length; ++i) {
    const int64_t row = i / batch.length;
    const double along_v = 0.7 * per_sample * direction.get(i);
    const double inverse = formula.inverse(norm[row]), coefficient = formula.coefficient(norm[row]);
    const double along_g =
        0.7 * per_sample * formula.twist(norm[row]) * inverse * gradient.get(i) * inverse;
    expect("second penalty gradient", i, along_v * coefficient + along_g * dot[row],
           (2 + std::fabs(coefficient)) * std::fabs(along_v) +
               std::fabs(along_g) * dot_magnitude[row]);
  }
}

// The pieces of the samples fill one wave of blocks and no part of a second, which would take as
// long. Only the grid is looked at: no block runs.
void check_one_wave() {
  harness::Device& device = harness::Device::instance();
  const unsigned wave = 4 * 132;
  const cuda::Penalty penalty{math::PenaltyMode::kTwoSided, 1.0, 10.0};
  device.only_block = 1 << 30;
  for (int64_t rows : {1, 7, 16, 24, 32, 64, 100, 128, 256}) {
    cuda::BatchCall call{rows, 3 * 1024 * 1024, Dtype::kFloat, 132};
    cuda::norm_penalty(call, penalty, nullptr, nullptr, nullptr);
    expect_close("blocks of a wave", rows, device.last_grid, 0.95 * wave, 0.054, 0.0);
  }
  device.only_block = -1;
}

}  // namespace

int main(int count, char** arguments) {
  using math::PenaltyMode;
  const bool small = count > 1 && !std::strcmp(arguments[1], "small");
  if (small) {
    check_penalty({Dtype::kFloat, 1, 8300, 0, true}, PenaltyMode::kTwoSided, 1);  // pieces
    check_penalty({Dtype::kHalf, 6, 2100, 0, true}, PenaltyMode::kTwoSided, 1);   // rows
    check_penalty({Dtype::kFloat, 700, 3, 0, true}, PenaltyMode::kTwoSided, 1);   // lanes
    check_penalty({Dtype::kDouble, 9, 257, 1, true}, PenaltyMode::kOneSided, 1);
    return report();
  }
  check_one_wave();
  for_each_batch([](const Batch& batch) {
    check_penalty(batch, PenaltyMode::kTwoSided, 2);
    check_penalty(batch, PenaltyMode::kOneSided, 2);
  });
  return report();
}
