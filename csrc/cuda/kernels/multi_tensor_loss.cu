// Launches of multi_tensor_loss: segments to chunks, chunks to blocks, lists to launches.
#include <algorithm>
#include <utility>

#include "multi_tensor_loss.cuh"

namespace ganloss::cuda {

namespace {

// A thread adds this many tiles one after another at most, so the rounding error of a sum does
// not grow with its length.
constexpr int64_t kMostTilesOfChunk = 64;

int64_t blocks_of(const SegmentArguments& segment, int64_t head, int64_t chunk) {
  if (segment.count == 0) return 0;
  return std::max<int64_t>(1, divide_up(segment.count - head, chunk));
}

// Blocks that are resident at once make a wave, and a last wave of a few blocks takes as long as a
// full one. So the chunk is the shortest with which the blocks fit into the fewest waves.
template <typename T>
LossCut cut_in(const LossCall& call) {
  constexpr int64_t kTile = int64_t(kThreads) * kLossItems<T>;
  const auto blocks_with = [&](int64_t tiles) {
    int64_t blocks = 0;
    for (int s = 0; s < call.size; ++s) blocks += blocks_of(call.segments[s], 0, tiles * kTile);
    return blocks;
  };
  const int64_t wave = int64_t(kBlocksPerMultiprocessor) * std::max(1, call.multiprocessors);
  const int64_t waves = std::max<int64_t>(1, divide_up(blocks_with(kMostTilesOfChunk), wave));
  // All tiles in chunks without a remainder, and a little longer for the last chunks of segments.
  int64_t tiles = std::max<int64_t>(1, divide_up(blocks_with(1), waves * wave));
  while (blocks_with(tiles) > waves * wave) ++tiles;
  const int64_t blocks = std::max<int64_t>(1, blocks_with(tiles));
  return {tiles * kTile, blocks, kMostSums * blocks * static_cast<int64_t>(sizeof(T))};
}

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
  entry.has_constant_slope = math::has_constant_slope(from.term);
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

// A list lies in the kernel's arguments, and what is not used of them is copied all the same: so it
// comes in several sizes, in bytes. Beyond 4 KiB it needs CUDA 13, where every driver takes 32 KiB.
// Double, which is there for exactness, makes do with fewer.
template <typename T>
struct ListSizes;
#if CUDART_VERSION >= 13000
template <>
struct ListSizes<float> : std::integer_sequence<int, 1024, 4096, 8192, 32764> {};
template <>
struct ListSizes<double> : std::integer_sequence<int, 4096, 32764> {};
#else
template <>
struct ListSizes<float> : std::integer_sequence<int, 1024, 4096> {};
template <>
struct ListSizes<double> : std::integer_sequence<int, 4096> {};
#endif

// Fills lists with the segments that `takes` takes, in order, and calls launch(list): each list the
// smallest that holds what is left, or the largest.
template <typename T, typename Entry, typename Takes, typename Launch>
void for_each_list(const LossCall& call, Takes&& takes, Launch&& launch) {
  bool is_first = true;
  int next = 0;
  int left = static_cast<int>(std::count_if(call.segments, call.segments + call.size, takes));
  const auto fill_and_launch = [&](auto& list) {
    list.size = 0;
    list.blocks = 0;
    list.chunk = static_cast<int>(call.cut.chunk);
    list.is_first = is_first;
    for (; next < call.size && list.size < list.kCapacity; ++next) {
      const SegmentArguments& segment = call.segments[next];
      if (!takes(segment)) continue;
      const auto [head, is_aligned] = boundary_of<T>(segment);
      Entry& entry = list.entries[list.size++];
      fill(entry, segment, next, head, is_aligned);
      entry.first_block = list.blocks;
      list.blocks += static_cast<int>(blocks_of(segment, head, call.cut.chunk));
    }
    launch(list);
    left -= list.size;
    is_first = false;
  };
  const auto with_smallest = [&]<int... kBytes>(std::integer_sequence<int, kBytes...>) {
    constexpr int kLargest = std::max({kBytes...});
    const auto with = [&]<int kSize>(std::integral_constant<int, kSize>) {
      using List = SegmentList<Entry, kSize>;
      if (left > List::kCapacity && kSize != kLargest) return false;
      List list;
      fill_and_launch(list);
      return true;
    };
    (with(std::integral_constant<int, kBytes>{}) || ...);
  };
  while (left > 0) with_smallest(ListSizes<T>{});
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
  for_each_list<T, Segment<T>>(call, takes_all, [&](const auto& list) {
    using List = std::remove_cvref_t<decltype(list)>;
    const int grid = grid_of(list.blocks);
    if (statistics != nullptr)
      GANLOSS_LAUNCH((multi_tensor_loss_kernel<T, true, List>), grid, kThreads, call.stream, list,
                     static_cast<T*>(total), static_cast<T*>(values), static_cast<T*>(statistics),
                     static_cast<T*>(call.workspace), call.ticket);
    else
      GANLOSS_LAUNCH((multi_tensor_loss_kernel<T, false, List>), grid, kThreads, call.stream, list,
                     static_cast<T*>(total), static_cast<T*>(values), static_cast<T*>(nullptr),
                     static_cast<T*>(call.workspace), call.ticket);
  });
}

template <typename T>
void backward(const LossCall& call, const void* grad_total, const void* grad_values) {
  const auto sums_b = [](const SegmentArguments& segment) {
    return segment.b_kind == OperandB::kScalar && segment.grad_b;
  };
  const bool any_sum = std::any_of(call.segments, call.segments + call.size, sums_b);
  for_each_list<T, GradientSegment<T>>(call, takes_wanted, [&](const auto& list) {
    using List = std::remove_cvref_t<decltype(list)>;
    GANLOSS_LAUNCH((multi_tensor_loss_backward_kernel<T, List>), grid_of(list.blocks), kThreads,
                   call.stream, list, static_cast<const T*>(grad_total),
                   static_cast<const T*>(grad_values),
                   any_sum ? static_cast<T*>(call.workspace) : nullptr, call.ticket);
  });
}

template <typename T>
void double_backward(const LossCall& call, const void* grad_total, const void* grad_values,
                     void* grad_grad_total, void* grad_grad_values) {
  for_each_list<T, CurvatureSegment<T>>(call, takes_all, [&](const auto& list) {
    using List = std::remove_cvref_t<decltype(list)>;
    GANLOSS_LAUNCH((multi_tensor_loss_double_backward_kernel<T, List>), grid_of(list.blocks),
                   kThreads, call.stream, list, static_cast<const T*>(grad_total),
                   static_cast<const T*>(grad_values), static_cast<T*>(grad_grad_total),
                   static_cast<T*>(grad_grad_values), static_cast<T*>(call.workspace), call.ticket);
  });
}

}  // namespace

LossCut cut_of(const LossCall& call) {
  return (call.is_double ? cut_in<double> : cut_in<float>)(call);
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
