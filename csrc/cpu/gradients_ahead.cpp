#include "gradients_ahead.h"

#include <cmath>

namespace ganloss::cpu {

// A gradient that the backward has to write from slopes, or to multiply.
struct Job {
  const SegmentAhead* segment;
  int64_t index;  // into a ++ b
  at::Tensor gradient;
  double factor;
};

namespace {

using Kept = SegmentAhead::Kept;

// A stored gradient is multiplied by ratios in this range alone. Above it, what fell to 0 below
// the smallest number could have become one again; and 0 is left to the operands, for 0 times an
// infinite slope is NaN.
constexpr double kLeastRatio = 0x1p-100, kLargestRatio = 0x1p24;

bool serves(double ratio) {
  return std::abs(ratio) >= kLeastRatio && std::abs(ratio) <= kLargestRatio;
}

bool is_half(Dtype dtype) {
  return dtype == Dtype::kHalf || dtype == Dtype::kBFloat16;
}

bool is_normal(double value, Dtype dtype) {
  return dtype == Dtype::kDouble ? std::isnormal(value) : std::isnormal(static_cast<float>(value));
}

Kept what_to_keep(const Resolved& segment) {
  if (segment.weight.defined()) return Kept::kGradient;
  if (segment.term.code == static_cast<int>(math::TermCode::linear)) return Kept::kConstant;
  return is_half(segment.dtype) && math::step_of(segment.term) > 0.0 ? Kept::kSlopes
                                                                     : Kept::kGradient;
}

int64_t groups_of(int64_t slopes) {
  return (slopes + kSlopesInGroup - 1) / kSlopesInGroup;
}

at::Tensor scalar_tensor(double value, at::ScalarType dtype) {
  at::Tensor tensor = empty_small({}, dtype);
  tensor.fill_(value);
  return tensor;
}

}  // namespace

double SegmentAhead::factor(double incoming) const {
  return incoming / (kept == Kept::kGradient ? made_for : static_cast<double>(count));
}

bool SegmentAhead::sum_serves(double factor) const {
  return std::isfinite(factor) &&
         (kept != Kept::kGradient || factor == 1.0 || (serves(factor) && std::isfinite(sum)));
}

void GradientsAhead::prepare(const Segments& segments, const std::vector<Resolved>& resolved,
                             at::IntArrayRef wanted) {
  kernels_ = &kernels();
  segment_of_b_ = segments_with_b(segments);
  segments_.resize(resolved.size());
  int64_t groups = 0;
  for_each_wanted(segments, wanted, [&](size_t, int64_t s, bool is_b) {
    const Resolved& from = resolved[s];
    SegmentAhead& segment = segments_[s];
    if (segment.kept == Kept::kNothing) {
      segment.kept = what_to_keep(from);
      segment.dtype = from.dtype;
      segment.dtype_of_a = from.a.scalar_type();
      segment.sizes.assign(from.a.sizes().begin(), from.a.sizes().end());
      segment.strides.assign(from.a.strides().begin(), from.a.strides().end());
      segment.count = from.a.numel();
      segment.step = math::step_of(from.term);
      segment.scale = segments.scale[s];
      segment.made_for = segment.scale == 0.0 ? 1.0 : segment.scale;
      segment.is_normal =
          !from.weight.defined() &&
          is_normal(segment.step * segment.made_for * from.inverse_count(), from.dtype);
      segment.b_is_scalar = from.has_scalar_b();
      if (segment.b_is_scalar) segment.dtype_of_b = from.b.scalar_type();
      if (segment.kept == Kept::kSlopes) {
        segment.first_group = groups;
        groups += groups_of(segment.count);
      }
    }
    if (segment.kept == Kept::kGradient && !(is_b && segment.b_is_scalar))
      (is_b ? segment.made.b : segment.made.a) = empty_output(from.a);
  });
  if (groups > 0) slopes_ = empty_output({groups * kBytesOfGroup}, {1}, at::kByte);
}

TermSums GradientsAhead::visit(const Resolved& segment, const Piece& piece) {
  const SegmentAhead& to = segments_[piece.row];
  switch (to.kept) {
    case Kept::kGradient:
      return kernels_->term_sum_and_gradient(
          segment.dtype, segment.term, segment.span(piece), to.made_for * segment.inverse_count(),
          to.made.a_at(piece.offset), to.made.b_at(piece.offset));
    case Kept::kSlopes:
      return kernels_->term_sum_and_slopes(segment.dtype, segment.term, segment.span(piece),
                                           at_offset_mutable(slopes_, to.byte_of(piece.offset)));
    default:
      return {kernels_->term_sum(segment.dtype, segment.term, segment.span(piece)),
              static_cast<double>(piece.count)};
  }
}

void GradientsAhead::finish(const std::vector<double>& gradient_sums) {
  for (size_t s = 0; s < segments_.size(); ++s) segments_[s].sum = gradient_sums[s];
}

std::vector<int64_t> GradientsAhead::take(const Incoming& incoming,
                                          const std::vector<int64_t>& wanted, Tensors& gradients) {
  is_taken_ = true;
  const auto count = static_cast<int64_t>(segments_.size());
  std::vector<int64_t> left;
  std::vector<Job> jobs;
  jobs.reserve(wanted.size());
  for (int64_t index : wanted) {
    const bool is_b = index >= count;
    const int64_t s = is_b ? segment_of_b_[index - count] : index;
    SegmentAhead& segment = segments_[s];
    const double factor = segment.factor(incoming.of_mean(s, segment.scale));
    if (is_b && segment.b_is_scalar) {
      if (segment.sum_serves(factor))
        gradients[index] = scalar_tensor(-factor * segment.sum, segment.dtype_of_b);
      else
        left.push_back(index);
      continue;
    }
    if (segment.kept != Kept::kGradient) {
      at::Tensor gradient = empty_output(segment.sizes, segment.strides, segment.dtype_of_a);
      jobs.push_back({&segment, index, std::move(gradient), is_b ? -factor : factor});
      continue;
    }
    at::Tensor made = std::move(is_b ? segment.made.b : segment.made.a);
    if (made.defined() && factor == 1.0)
      gradients[index] = std::move(made);
    else if (made.defined() && serves(factor) && !is_half(segment.dtype))
      jobs.push_back({&segment, index, std::move(made), factor});
    else
      left.push_back(index);
  }
  run(jobs, left, gradients);
  return left;
}

void GradientsAhead::run(std::vector<Job>& jobs, std::vector<int64_t>& left,
                         Tensors& gradients) const {
  if (jobs.empty()) return;
  c10::SmallVector<int64_t, 8> lengths;
  for (const Job& job : jobs) lengths.push_back(job.segment->count);
  const std::vector<Piece> pieces = cut_rows(lengths);
  std::vector<char> is_good(pieces.size(), true);
  for_each_piece(pieces, [&](int64_t index) {
    const Piece& piece = pieces[index];
    const Job& job = jobs[piece.row];
    const SegmentAhead& segment = *job.segment;
    void* to = at_offset_mutable(job.gradient, piece.offset);
    if (segment.kept == Kept::kGradient)
      is_good[index] =
          kernels_->multiply(segment.dtype, to, job.factor, piece.count, segment.is_normal);
    else
      kernels_->gradient_of_slopes(segment.dtype,
                                   segment.kept == Kept::kSlopes
                                       ? at_offset(slopes_, segment.byte_of(piece.offset))
                                       : nullptr,
                                   segment.step, job.factor, to, piece.count);
  });
  for (size_t index = 0; index < pieces.size(); ++index)
    if (!is_good[index]) jobs[pieces[index].row].gradient.reset();
  for (Job& job : jobs) {
    if (job.gradient.defined())
      gradients[job.index] = std::move(job.gradient);
    else
      left.push_back(job.index);
  }
}

void GradientsAhead::clear() {
  segments_.clear();
  slopes_.reset();
}

bool is_plain(const at::Tensor& tensor) {
  if (!tensor.defined()) return true;
  using c10::DispatchKey;
  constexpr c10::DispatchKeySet ordinary({DispatchKey::CPU, DispatchKey::AutogradCPU,
                                          DispatchKey::AutocastCPU, DispatchKey::ADInplaceOrView,
                                          DispatchKey::BackendSelect});
  // By bits: the difference of two key sets would leave the backend in.
  const uint64_t keys =
      tensor.key_set().raw_repr() | c10::impl::tls_local_dispatch_key_set().included_.raw_repr();
  return (keys & ~ordinary.raw_repr()) == 0;
}

bool are_plain(at::TensorList tensors) {
  return std::all_of(tensors.begin(), tensors.end(), is_plain);
}

}  // namespace ganloss::cpu
