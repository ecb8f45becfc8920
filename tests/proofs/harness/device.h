// A CUDA device of the imagination: runs the blocks and threads of a launch on the CPU.
//
// Every CUDA thread is a fiber. A thread runs until it waits (at a barrier or a warp operation) or
// reaches an atomic; then the scheduler takes another one. GANLOSS_HARNESS_SEED picks
// the schedule: without it threads and blocks take turns in order, with it both are drawn at
// random. The harness stops with a message where a GPU would hang or be undefined: a barrier that
// some threads left out, a shuffle with a lane that has exited, too much shared memory.
#pragma once

#include <vector_types.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <vector>

#include "fiber.h"

namespace harness {

constexpr int kWarpSize = 32;
constexpr size_t kSharedBytes = 48 << 10;
constexpr size_t kSharedRedzone = 64;

// Memory order, as ThreadSanitizer is told of it; nothing in other builds.
#if defined(__SANITIZE_THREAD__)
inline void acquire(void* object) {
  __tsan_acquire(object);
}
inline void release(void* object) {
  __tsan_release(object);
}
#else
inline void acquire(void*) {}
inline void release(void*) {}
#endif

enum class State { kReady, kAtBarrier, kAtWarpOperation, kDone };

struct Block;

struct Thread {
  Fiber fiber;
  Block* block;
  unsigned index;  // within the block
  uint3 position;
  State state;

  // The warp operation it waits at: all lanes of `mask` must come to the same one.
  const char* operation;
  unsigned mask;
  // Values for the other lanes, two sets in turns: a lane may write for the next operation while
  // a slow one still reads.
  uint64_t exchange[2];
  unsigned turn;
  unsigned barrier_turn;

  unsigned lane() const { return index % kWarpSize; }
};

struct Block {
  std::deque<Thread> threads;
  uint3 position;
  dim3 grid, shape;
  unsigned done;
  std::unique_ptr<char[]> shared{new char[kSharedBytes]};
  size_t shared_used;
  // The arrays so far, by their declarations. Plain memory: the harness's own bookkeeping must
  // not look like a race between the threads that do it.
  struct {
    const void* declaration;
    char* memory;
  } arrays[16];
  int array_count;
  char barrier[2];  // names for ThreadSanitizer
  std::vector<char> warp_barrier;
  void (*body)(void*);
  void* argument;
};

// The harness's own state is no part of the memory of the kernels: ThreadSanitizer must not look
// at it, so it is read and written in uninstrumented functions only.
inline Thread* current;
HARNESS_STATE inline Thread* this_thread() {
  return current;
}
HARNESS_STATE inline uint3 thread_position() {
  return current->position;
}
HARNESS_STATE inline uint3 block_position() {
  return current->block->position;
}
HARNESS_STATE inline dim3 grid_size() {
  return current->block->grid;
}
HARNESS_STATE inline dim3 block_size() {
  return current->block->shape;
}

[[noreturn]] inline void fail(const char* message) {
  std::fprintf(stderr, "harness: ERROR: %s", message);
  if (current) {
    int counts[4] = {};
    for (const Thread& thread : current->block->threads) ++counts[static_cast<int>(thread.state)];
    std::fprintf(stderr,
                 " (block %u, thread %u; ready %d, at barrier %d, in warp operation %d, "
                 "exited %d)",
                 current->block->position.x, current->index, counts[0], counts[1], counts[2],
                 counts[3]);
  }
  std::fprintf(stderr, "\n");
  std::abort();
}

HARNESS_UNINSTRUMENTED inline void yield(State state) {
  Thread* self = current;
  self->state = state;
  self->fiber.suspend();
}

// The memory of one GANLOSS_SHARED declaration in this block: NaN at first, with guards between
// arrays under AddressSanitizer.
HARNESS_UNINSTRUMENTED inline void* shared_array(const void* declaration, size_t bytes) {
  Block& block = *current->block;
  for (int i = 0; i < block.array_count; ++i)
    if (block.arrays[i].declaration == declaration) return block.arrays[i].memory;
  const size_t begin = block.shared_used;
  block.shared_used = (begin + bytes + 15) / 16 * 16 + kSharedRedzone;
  if (block.shared_used > kSharedBytes || block.array_count == 16)
    fail("more shared memory than a block has");
  char* memory = block.shared.get() + begin;
#if defined(__SANITIZE_ADDRESS__)
  __asan_poison_memory_region(memory + bytes, block.shared_used - begin - bytes);
#endif
  block.arrays[block.array_count].declaration = declaration;
  block.arrays[block.array_count++].memory = memory;
  return memory;
}

class Device {
 public:
  static Device& instance() {
    static Device device;
    return device;
  }

  // Runs body(argument) in every thread; with `only_block` >= 0, in that block alone.
  HARNESS_UNINSTRUMENTED void launch(dim3 grid, dim3 shape, void (*body)(void*), void* argument) {
    const unsigned blocks = grid.x;
    std::vector<unsigned> order;
    for (unsigned i = 0; i < blocks; ++i)
      if (only_block < 0 || i == static_cast<unsigned>(only_block)) order.push_back(i);
    if (seed_ >= 0) std::shuffle(order.begin(), order.end(), random_);
    std::vector<Block*> active;
    size_t next = 0, slot = 0;
    while (next < order.size() || !active.empty()) {
      while (next < order.size() && active.size() < kResident) {
        Block& block = block_of(slot++);
        start(block, order[next++], grid, shape, body, argument);
        active.push_back(&block);
      }
      const size_t chosen = seed_ >= 0 ? random_() % active.size() : turn_++ % active.size();
      Block& block = *active[chosen];
      run_round(block);
      if (block.done == block.threads.size()) active.erase(active.begin() + chosen);
    }
    acquire(&completion_);
    current = nullptr;
    ++launches;
    last_grid = blocks;
  }

  // The schedule: negative for turns in order, else a seed.
  void set_seed(long seed) {
    seed_ = seed;
    random_.seed(static_cast<unsigned>(seed + 1));
  }

  long launches = 0;
  // Of the last launch, whether its blocks ran or not.
  unsigned last_grid = 0;
  size_t last_argument_bytes = 0;
  long memsets = 0;
  long only_block = -1;  // for tests of offsets that would take all day in full

 private:
#if defined(__SANITIZE_THREAD__)
  // A block that took over the fibers of an earlier one would inherit its order of events, and
  // races between the two would go unseen.
  static constexpr size_t kResident = 24;
#else
  static constexpr size_t kResident = 6;
#endif

  Device() {
    const char* seed = std::getenv("GANLOSS_HARNESS_SEED");
    set_seed(seed ? std::atol(seed) : -1);
  }

  Block& block_of(size_t slot) {
#if defined(__SANITIZE_THREAD__)
    if (slot >= kResident) fail("too many blocks for ThreadSanitizer: launch fewer");
#else
    // Any slot whose block has finished; one is free, since fewer than kResident are active.
    for (Block& block : blocks_)
      if (block.done == block.threads.size()) return block;
    slot = blocks_.size();
#endif
    while (blocks_.size() <= slot) blocks_.emplace_back();
    return blocks_[slot];
  }

  HARNESS_UNINSTRUMENTED void start(Block& block, unsigned index, dim3 grid, dim3 shape,
                                    void (*body)(void*), void* argument) {
    block.position = {index, 0, 0};
    block.grid = grid;
    block.shape = shape;
    block.done = 0;
    block.body = body;
    block.argument = argument;
    block.threads.resize(shape.x);
    block.warp_barrier.assign((shape.x + kWarpSize - 1) / kWarpSize, 0);
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(block.shared.get(), kSharedBytes);
#endif
    std::memset(block.shared.get(), 0xff, kSharedBytes);
    block.shared_used = 0;
    block.array_count = 0;
    for (unsigned i = 0; i < shape.x; ++i) {
      Thread& thread = block.threads[i];
      thread.block = &block;
      thread.index = i;
      thread.position = {i, 0, 0};
      thread.state = State::kReady;
      thread.turn = thread.barrier_turn = 0;
      thread.fiber.prepare(&Device::run_thread, &thread);
    }
    release(&launch_order_);  // what the host did so far comes before what the block does
  }

  HARNESS_UNINSTRUMENTED static void run_thread(void* argument) {
    Thread* self = static_cast<Thread*>(argument);
    acquire(&instance().launch_order_);
    self->block->body(self->block->argument);
    release(&instance().completion_);
    self->state = State::kDone;
    ++self->block->done;
  }

  // Lets every ready thread run once, then releases the barriers that are complete.
  HARNESS_UNINSTRUMENTED void run_round(Block& block) {
    bool progress = false;
    const unsigned count = static_cast<unsigned>(block.threads.size());
    const unsigned first = seed_ >= 0 ? random_() % count : 0;
    const unsigned step = seed_ >= 0 ? 1 + 2 * (random_() % 16) : 1;  // odd: visits all of 2^k
    for (unsigned i = 0; i < count; ++i) {
      Thread& thread = block.threads[(first + i * step) % count];
      if (thread.state != State::kReady) continue;
      progress = true;
      current = &thread;
      thread.fiber.resume();
    }
    progress |= release_warps(block);
    progress |= release_barrier(block);
    if (!progress && block.done < count) {
      for (Thread& thread : block.threads)
        if (thread.state != State::kDone) current = &thread;
      fail("deadlock: a divergent barrier or warp operation");
    }
  }

  HARNESS_UNINSTRUMENTED bool release_warps(Block& block) {
    bool released = false;
    const unsigned count = static_cast<unsigned>(block.threads.size());
    for (unsigned base = 0; base < count; base += kWarpSize) {
      for (unsigned lane = 0; lane < kWarpSize && base + lane < count; ++lane) {
        Thread& thread = block.threads[base + lane];
        if (thread.state != State::kAtWarpOperation) continue;
        current = &thread;
        bool complete = true;
        for (unsigned k = 0; k < kWarpSize; ++k) {
          if (!(thread.mask >> k & 1)) continue;
          if (base + k >= count) fail("a warp operation names a lane beyond the block");
          const Thread& other = block.threads[base + k];
          if (other.state == State::kDone) fail("a warp operation names a lane that has exited");
          complete &= other.state == State::kAtWarpOperation &&
                      other.operation == thread.operation && other.mask == thread.mask;
        }
        if (!complete) continue;
        for (unsigned k = 0; k < kWarpSize; ++k)
          if (thread.mask >> k & 1) block.threads[base + k].state = State::kReady;
        released = true;
      }
    }
    return released;
  }

  HARNESS_UNINSTRUMENTED bool release_barrier(Block& block) {
    unsigned waiting = 0;
    for (const Thread& thread : block.threads) waiting += thread.state == State::kAtBarrier;
    if (waiting == 0 || waiting + block.done < block.threads.size()) return false;
    if (block.done > 0) fail("__syncthreads after some threads of the block have exited");
    for (Thread& thread : block.threads) thread.state = State::kReady;
    return true;
  }

  std::deque<Block> blocks_;
  std::minstd_rand random_;
  long seed_;
  size_t turn_ = 0;
  char launch_order_, completion_;  // names for ThreadSanitizer
};

template <typename Body, typename... Arguments>
void launch(unsigned blocks, unsigned threads, Body body, const Arguments&...) {
  Device::instance().last_argument_bytes = (0 + ... + sizeof(Arguments));
  Device::instance().launch(
      dim3(blocks), dim3(threads), [](void* argument) { (*static_cast<Body*>(argument))(); },
      &body);
}

}  // namespace harness
