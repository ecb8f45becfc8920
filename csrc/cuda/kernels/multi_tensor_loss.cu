// Launches of multi_tensor_loss: segments to chunks, chunks to blocks, lists to launches.
#include <algorithm>

#include "multi_tensor_loss.cuh"

namespace ganloss::cuda {

namespace {

// A thread adds this many tiles one after another at most, so the rounding error of a sum does
// not grow with its length.
constexpr int64_t kMostTilesOfChunk = 64;

constexpr int64_t kAlignment = 256;  // of the parts of the workspace

int64_t round_up(int64_t x, int64_t y) {
  return divide_up(x, y) * y;
}

template <typename T>
int64_t chunk_length(const LossCall& call) {
  constexpr int64_t kTile = int64_t(kThreads) * kLossItems<T>;
  int64_t tiles = 0;
  for (int s = 0; s < call.size; ++s) tiles += divide_up(call.segments[s].count, kTile);
  const int64_t blocks = int64_t(kBlocksPerMultiprocessor) * call.multiprocessors;
  return kTile * std::clamp<int64_t>(divide_up(tiles, blocks), 1, kMostTilesOfChunk);
}

int64_t blocks_of(const SegmentArguments& segment, int64_t head, int64_t chunk) {
  if (segment.count == 0) return 0;
  return std::max<int64_t>(1, divide_up(segment.count - head, chunk));
}

// The workspace: a ticket for each launch, then partial sums, which the launches of a call use
// one after another.
template <typename T>
struct Workspace {
  explicit Workspace(const LossCall& call) {
    const int64_t chunk = chunk_length<T>(call);
    for (int s = 0; s < call.size; ++s) blocks += blocks_of(call.segments[s], 0, chunk);
    using List = SegmentList<CurvatureSegment<T>, kSmallArguments>;
    ticket_bytes = round_up((call.size / List::kCapacity + 1) * sizeof(unsigned), kAlignment);
    bytes = ticket_bytes + 5 * std::max<int64_t>(1, blocks) * static_cast<int64_t>(sizeof(T));
    tickets = static_cast<unsigned*>(call.workspace);
    partials = reinterpret_cast<T*>(static_cast<char*>(call.workspace) + ticket_bytes);
  }
  void clear_tickets(cudaStream_t stream) const {
    if (blocks > 1) cudaMemsetAsync(tickets, 0, ticket_bytes, stream);
  }

  int64_t blocks = 0;
  int64_t ticket_bytes;
  int64_t bytes;
  unsigned* tickets;
  T* partials;
};

// Elements of size `element_bytes` before the first 16-byte boundary.
int head_of(const void* pointer, int element_bytes) {
  const auto past = static_cast<int>(reinterpret_cast<uintptr_t>(pointer) % kWordBytes);
  return past == 0 ? 0 : (kWordBytes - past) / element_bytes;
}

bool is_boundary(const void* pointer, int64_t bytes) {
  return pointer == nullptr || (reinterpret_cast<uintptr_t>(pointer) + bytes) % kWordBytes == 0;
}

template <typename T>
void fill(Segment<T>& entry, const SegmentArguments& from, int index, int head, bool is_aligned) {
  entry.a = from.a;
  entry.b = from.b;
  entry.weight = static_cast<const T*>(from.weight);
  entry.count = from.count;
  entry.first = static_cast<T>(from.term.first);
  entry.second = static_cast<T>(from.term.second);
  entry.scale = static_cast<T>(from.scale);
  entry.inverse_count = static_cast<T>(1.0 / static_cast<double>(from.count));
  entry.index = index;
  entry.dtype = from.dtype;
  entry.b_kind = from.b_kind;
  entry.b_dtype = from.b_dtype;
  entry.term = static_cast<uint8_t>(from.term.code);
  entry.head = static_cast<uint8_t>(head);
  entry.is_aligned = is_aligned;
}
template <typename T>
void fill(GradientSegment<T>& entry, const SegmentArguments& from, int index, int head,
          bool is_aligned) {
  fill(static_cast<Segment<T>&>(entry), from, index, head, is_aligned);
  entry.grad_a = from.grad_a;
  entry.grad_b = from.grad_b;
}
template <typename T>
void fill(CurvatureSegment<T>& entry, const SegmentArguments& from, int index, int head,
          bool is_aligned) {
  fill(static_cast<GradientSegment<T>&>(entry), from, index, head, is_aligned);
  entry.va = from.va;
  entry.vb = from.vb;
}

// Where the words of a segment begin, and whether all its operands agree on it.
template <typename T>
std::pair<int, bool> boundary_of(const SegmentArguments& segment) {
  const int size = bytes_of(segment.dtype);
  const int head = head_of(segment.a, size);
  const bool pair = segment.b_kind == OperandB::kTensor;
  const int64_t bytes = int64_t(head) * size;
  const bool is_aligned =
      is_boundary(segment.a, bytes) && is_boundary(segment.grad_a, bytes) &&
      is_boundary(segment.va, bytes) && is_boundary(segment.weight, head * int64_t(sizeof(T))) &&
      (!pair || (is_boundary(segment.b, bytes) && is_boundary(segment.grad_b, bytes) &&
                 is_boundary(segment.vb, bytes)));
  return {is_aligned ? head : 0, is_aligned};
}

// Fills lists with the segments that `takes` takes, in order, and calls launch(list, ticket).
// Only the last list is a small one.
template <typename T, typename Entry, typename Takes, typename Launch>
void for_each_list(const LossCall& call, Takes&& takes, Launch&& launch) {
  using Small = SegmentList<Entry, kSmallArguments>;
  using Large = SegmentList<Entry, kLargeArguments>;
  const int64_t chunk = chunk_length<T>(call);
  unsigned* ticket = static_cast<unsigned*>(call.workspace);
  bool is_first = true;
  int next = 0;
  int left = static_cast<int>(std::count_if(call.segments, call.segments + call.size, takes));
  const auto fill_and_launch = [&](auto& list) {
    list.size = 0;
    list.blocks = 0;
    list.chunk = static_cast<int>(chunk);
    list.is_first = is_first;
    for (; next < call.size && list.size < list.kCapacity; ++next) {
      if (!takes(call.segments[next])) continue;
      const auto [head, is_aligned] = boundary_of<T>(call.segments[next]);
      Entry& entry = list.entries[list.size++];
      fill(entry, call.segments[next], next, head, is_aligned);
      entry.first_block = list.blocks;
      list.blocks += static_cast<int>(blocks_of(call.segments[next], head, chunk));
    }
    launch(list, ticket++);
    left -= list.size;
    is_first = false;
  };
  while (left > 0) {
    if (left <= Small::kCapacity) {
      Small list;
      fill_and_launch(list);
    } else {
      Large list;
      fill_and_launch(list);
    }
  }
}

int grid_of(int blocks) {
  return std::max(1, blocks);
}

bool takes_all(const SegmentArguments&) {
  return true;
}
bool takes_wanted(const SegmentArguments& segment) {
  return segment.grad_a || segment.grad_b;
}

template <typename T>
void forward(const LossCall& call, void* total, void* values, void* statistics) {
  const Workspace<T> workspace(call);
  workspace.clear_tickets(call.stream);
  for_each_list<T, Segment<T>>(call, takes_all, [&](const auto& list, unsigned* ticket) {
    using List = std::remove_cvref_t<decltype(list)>;
    const int grid = grid_of(list.blocks);
    if (statistics != nullptr)
      GANLOSS_LAUNCH((multi_tensor_loss_kernel<T, true, List>), grid, kThreads, call.stream, list,
                     static_cast<T*>(total), static_cast<T*>(values), static_cast<T*>(statistics),
                     workspace.partials, ticket);
    else
      GANLOSS_LAUNCH((multi_tensor_loss_kernel<T, false, List>), grid, kThreads, call.stream, list,
                     static_cast<T*>(total), static_cast<T*>(values), static_cast<T*>(nullptr),
                     workspace.partials, ticket);
  });
}

template <typename T>
void backward(const LossCall& call, const void* grad_total, const void* grad_values) {
  const Workspace<T> workspace(call);
  const auto sums_b = [](const SegmentArguments& segment) {
    return segment.b_kind == OperandB::kScalar && segment.grad_b;
  };
  const bool any_sum = std::any_of(call.segments, call.segments + call.size, sums_b);
  if (any_sum) workspace.clear_tickets(call.stream);
  for_each_list<T, GradientSegment<T>>(call, takes_wanted, [&](const auto& list, unsigned* ticket) {
    using List = std::remove_cvref_t<decltype(list)>;
    GANLOSS_LAUNCH((multi_tensor_loss_backward_kernel<T, List>), grid_of(list.blocks), kThreads,
                   call.stream, list, static_cast<const T*>(grad_total),
                   static_cast<const T*>(grad_values), any_sum ? workspace.partials : nullptr,
                   any_sum ? ticket : nullptr);
  });
}

template <typename T>
void double_backward(const LossCall& call, const void* grad_total, const void* grad_values,
                     void* grad_grad_total, void* grad_grad_values) {
  const Workspace<T> workspace(call);
  workspace.clear_tickets(call.stream);
  for_each_list<T, CurvatureSegment<T>>(call, takes_all, [&](const auto& list, unsigned* ticket) {
    using List = std::remove_cvref_t<decltype(list)>;
    GANLOSS_LAUNCH((multi_tensor_loss_double_backward_kernel<T, List>), grid_of(list.blocks),
                   kThreads, call.stream, list, static_cast<const T*>(grad_total),
                   static_cast<const T*>(grad_values), static_cast<T*>(grad_grad_total),
                   static_cast<T*>(grad_grad_values), workspace.partials, ticket);
  });
}

}  // namespace

int64_t loss_workspace_bytes(const LossCall& call) {
  return call.is_double ? Workspace<double>(call).bytes : Workspace<float>(call).bytes;
}

void multi_tensor_loss(const LossCall& call, void* total, void* values, void* statistics) {
  (call.is_double ? forward<double> : forward<float>)(call, total, values, statistics);
}

void multi_tensor_loss_backward(const LossCall& call, const void* grad_total,
                                const void* grad_values) {
  (call.is_double ? backward<double> : backward<float>)(call, grad_total, grad_values);
}

void multi_tensor_loss_double_backward(const LossCall& call, const void* grad_total,
                                       const void* grad_values, void* grad_grad_total,
                                       void* grad_grad_values) {
  (call.is_double ? double_backward<double> : double_backward<float>)(call, grad_total, grad_values,
                                                                      grad_grad_total,
                                                                      grad_grad_values);
}

}  // namespace ganloss::cuda
