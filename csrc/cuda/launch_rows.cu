// Launches of interpolate and norm_penalty: rows to blocks.
#include <algorithm>
#include <initializer_list>

#include "rows.cuh"

namespace ganloss::cuda {

namespace {

// From this many elements on a row is worth a block; below, a few lanes serve it as well, unless
// there are so few rows that the device would idle.
constexpr int64_t kWideRow = 2048;
constexpr int64_t kWideRowOfFew = kThreads;

constexpr int64_t kMostOfPiece = int64_t(1) << 30;  // offsets within a piece are 32-bit

constexpr int64_t kTicketBytes = 256;

int64_t divide_up(int64_t x, int64_t y) {
  return (x + y - 1) / y;
}

int64_t target_blocks(const BatchCall& call) {
  return int64_t(kBlocksPerMultiprocessor) * std::max(1, call.multiprocessors);
}

bool is_wide(const BatchCall& call) {
  return call.length >= (call.rows <= target_blocks(call) ? kWideRowOfFew : kWideRow);
}

int64_t bytes_of(Dtype dtype) {
  return dtype == Dtype::kDouble ? 8 : dtype == Dtype::kFloat ? 4 : 2;
}

// How the operands lie in memory. `beside` is an operand in the compute type, or null.
struct Alignment {
  Alignment(const BatchCall& call, std::initializer_list<const void*> operands,
            const void* beside = nullptr) {
    const int64_t size = bytes_of(call.dtype);
    const auto past = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % kWordBytes; };
    const uintptr_t first = past(*operands.begin());
    is_aligned = true;
    for (const void* operand : operands) is_aligned &= !operand || past(operand) == first;
    if (beside) {
      const int64_t head = first == 0 ? 0 : (kWordBytes - first) / size;
      const int64_t width = size == 8 ? 8 : 4;
      // Rows keep the phase of one another only where a word holds as many of both.
      is_aligned &= past(static_cast<const char*>(beside) + head * width) == 0 && call.rows == 1;
    }
    has_words = is_aligned && first == 0 && call.length * size % kWordBytes == 0;
  }
  bool is_aligned;
  bool has_words;
};

template <typename T>
Rows rows_of(const BatchCall& call, const Alignment& alignment) {
  Rows batch{call.rows,           call.length, 1, 0, kWarp, alignment.is_aligned,
             alignment.has_words, call.dtype};
  if (is_wide(call)) {
    constexpr int64_t kTile = int64_t(kThreads) * kRowItems<T>;
    // Pieces only where rows alone would leave multiprocessors idle, or a row is very long.
    const int64_t wanted = call.rows == 0 ? 1 : divide_up(target_blocks(call), call.rows);
    const int64_t piece = divide_up(divide_up(call.length, wanted), kTile) * kTile;
    batch.piece = static_cast<int>(std::min(piece, kMostOfPiece));
    batch.pieces = divide_up(call.length, batch.piece);
  } else {
    const int64_t steps =
        alignment.has_words ? call.length * bytes_of(call.dtype) / kWordBytes : call.length;
    batch.lanes = 1;
    while (batch.lanes < kWarp && batch.lanes < steps) batch.lanes *= 2;
  }
  return batch;
}

// Blocks of a launch. Pieces of one row have a block each; whole rows share the device.
int64_t blocks_of(const BatchCall& call, const Rows& batch) {
  if (!is_wide(call))
    return std::clamp<int64_t>(divide_up(call.rows, kThreads / batch.lanes), 1,
                               2 * target_blocks(call));
  if (batch.pieces > 1) return std::max<int64_t>(1, call.rows * batch.pieces);
  return std::clamp<int64_t>(call.rows, 1, target_blocks(call));
}

template <typename T, typename Finish>
void launch_row_sum(const BatchCall& call, const Finish& finish, const void* x, const void* y,
                    T factor, void* result) {
  const Rows batch = rows_of<T>(call, Alignment(call, {x, y}));
  const auto blocks = static_cast<unsigned>(blocks_of(call, batch));
  auto* ticket = static_cast<unsigned*>(call.workspace);
  auto* partials = reinterpret_cast<T*>(static_cast<char*>(call.workspace) + kTicketBytes);
  if (blocks > 1) cudaMemsetAsync(ticket, 0, sizeof(unsigned), call.stream);
  if (x == y) y = nullptr;  // so that it is read once
  if (is_wide(call))
    GANLOSS_LAUNCH((wide_row_sum_kernel<T, Finish>), blocks, kThreads, call.stream, batch, finish,
                   x, y, factor, static_cast<T*>(result), partials, ticket);
  else
    GANLOSS_LAUNCH((narrow_row_sum_kernel<T, Finish>), blocks, kThreads, call.stream, batch, finish,
                   x, y, factor, static_cast<T*>(result), partials, ticket);
}

template <typename T, typename Pass>
void launch_row_map(const BatchCall& call, const Pass& pass, const void* x, const void* y,
                    const void* w, void* out) {
  if (call.rows == 0 || call.length == 0) return;
  const Rows batch = rows_of<T>(call, Alignment(call, {x, y, out}, w));
  const auto blocks = static_cast<unsigned>(blocks_of(call, batch));
  if constexpr (!Pass::kHasWeight) {
    if (!is_wide(call)) {
      GANLOSS_LAUNCH((narrow_row_map_kernel<T, Pass>), blocks, kThreads, call.stream, batch, pass,
                     x, y, out);
      return;
    }
  }
  GANLOSS_LAUNCH((wide_row_map_kernel<T, Pass>), blocks, kThreads, call.stream, batch, pass, x, y,
                 static_cast<const T*>(w), out);
}

template <typename T>
math::NormPenalty<T> as_norm_penalty(const Penalty& penalty) {
  return {penalty.mode, static_cast<T>(penalty.target)};
}

// The factor of one sample; of an empty batch infinite, so that its mean is NaN.
template <typename T>
T scale_of_sample(const BatchCall& call, const Penalty& penalty) {
  return static_cast<T>(penalty.scale / static_cast<double>(call.rows));
}

template <typename T>
void forward(const BatchCall& call, const Penalty& penalty, const void* gradient, void* result,
             void* norms) {
  const PenaltyOfNorm<T> finish{as_norm_penalty<T>(penalty), static_cast<T*>(norms)};
  launch_row_sum<T>(call, finish, gradient, gradient, scale_of_sample<T>(call, penalty), result);
}

template <typename T>
void backward(const BatchCall& call, const Penalty& penalty, const void* grad_penalty,
              const void* gradient, const void* norms, void* out) {
  const PenaltyGradient<T> pass{as_norm_penalty<T>(penalty), static_cast<const T*>(grad_penalty),
                                static_cast<const T*>(norms), scale_of_sample<T>(call, penalty)};
  launch_row_map<T>(call, pass, gradient, nullptr, nullptr, out);
}

template <typename T>
void double_backward(const BatchCall& call, const Penalty& penalty, const void* direction,
                     const void* grad_penalty, const void* gradient, const void* norms, void* dots,
                     void* grad_grad, void* out) {
  const T scale = scale_of_sample<T>(call, penalty);
  const PenaltyAlongDirection<T> finish{as_norm_penalty<T>(penalty), static_cast<const T*>(norms),
                                        static_cast<T*>(dots)};
  launch_row_sum<T>(call, finish, gradient, direction, scale, grad_grad);
  const PenaltyCurvature<T> pass{as_norm_penalty<T>(penalty), static_cast<const T*>(grad_penalty),
                                 static_cast<const T*>(norms), static_cast<const T*>(dots), scale};
  launch_row_map<T>(call, pass, direction, gradient, nullptr, out);
}

template <typename T>
void interpolate_in(const BatchCall& call, const void* fake, const void* real, const void* alpha,
                    bool alpha_per_element, void* out) {
  if (alpha_per_element)
    launch_row_map<T>(call, InterpolateElements<T>{}, fake, real, alpha, out);
  else
    launch_row_map<T>(call, InterpolateRows<T>{static_cast<const T*>(alpha)}, fake, real, nullptr,
                      out);
}

bool is_double(const BatchCall& call) {
  return call.dtype == Dtype::kDouble;
}

}  // namespace

int64_t batch_workspace_bytes(const BatchCall& call) {
  // Pieces have a block each; every other launch has at most 2 * target_blocks.
  const Alignment any(call, {nullptr});
  const Rows batch = is_double(call) ? rows_of<double>(call, any) : rows_of<float>(call, any);
  const int64_t blocks = std::max(call.rows * batch.pieces, 2 * target_blocks(call));
  return kTicketBytes + blocks * (is_double(call) ? 8 : 4);
}

void interpolate(const BatchCall& call, const void* fake, const void* real, const void* alpha,
                 bool alpha_per_element, void* out) {
  (is_double(call) ? interpolate_in<double> : interpolate_in<float>)(call, fake, real, alpha,
                                                                     alpha_per_element, out);
}

void norm_penalty(const BatchCall& call, const Penalty& penalty, const void* gradient,
                           void* result, void* norms) {
  (is_double(call) ? forward<double> : forward<float>)(call, penalty, gradient, result, norms);
}

void norm_penalty_backward(const BatchCall& call, const Penalty& penalty,
                                    const void* grad_penalty, const void* gradient,
                                    const void* norms, void* out) {
  (is_double(call) ? backward<double> : backward<float>)(call, penalty, grad_penalty, gradient,
                                                         norms, out);
}

void norm_penalty_double_backward(const BatchCall& call, const Penalty& penalty,
                                           const void* direction, const void* grad_penalty,
                                           const void* gradient, const void* norms, void* dots,
                                           void* grad_grad, void* out) {
  (is_double(call) ? double_backward<double> : double_backward<float>)(call, penalty, direction,
                                                                       grad_penalty, gradient,
                                                                       norms, dots, grad_grad, out);
}

}  // namespace ganloss::cuda
