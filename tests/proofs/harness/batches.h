// Batches of every shape that the kernels over rows treat in a way of its own.
#pragma once

#include "check.h"

namespace check {

inline std::mt19937 random_numbers(2);

struct Batch {
  Dtype dtype;
  int64_t rows, length;
  int offset;    // elements past a 16-byte boundary
  bool aligned;  // whether all operands have the same offset

  Dtype compute() const { return dtype == Dtype::kDouble ? Dtype::kDouble : Dtype::kFloat; }
  int other() const { return aligned ? offset : offset + 1; }
  Buffer images(bool alike) const {
    return Buffer(dtype, rows * length, alike ? offset : other()).randomize(random_numbers);
  }
  ganloss::cuda::BatchCall call(int multiprocessors) const {
    return {rows, length, dtype, multiprocessors};
  }
};

// Calls check(batch) for batches of every dtype, shape and alignment.
template <typename Check>
void for_each_batch(Check&& check) {
  for (Dtype dtype : {Dtype::kFloat, Dtype::kHalf, Dtype::kBFloat16, Dtype::kDouble}) {
    for (const auto& [rows, length] : {std::pair<int64_t, int64_t>{1, 1},
                                       {0, 7},
                                       {3, 0},
                                       {5, 7},
                                       {700, 2},
                                       {40, 64},
                                       {33, 100},
                                       {3, 2047},
                                       {2, 2049},
                                       {1, 10007},
                                       {20, 2048},
                                       {9, 257}}) {
      check(Batch{dtype, rows, length, 0, true});
      check(Batch{dtype, rows, length, 1, true});
      check(Batch{dtype, rows, length, 0, false});
    }
  }
}

}  // namespace check
