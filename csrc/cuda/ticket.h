// The ticket of a call: by it the last block of a launch knows that it is the last.
#pragma once

#include <ATen/core/Tensor.h>
#include <cuda_runtime_api.h>

namespace ganloss::cuda {

// A ticket for calls on the current stream of the device of `like`.
//
// Every stream has one of its own, zeroed once: its launches follow one another, and each leaves 0.
// A graph that is being captured gets another, from its own memory and with a node that zeroes it:
// its replays may run beside what the stream does then. So does a stream whose handle stands for
// several, and one for which no ticket is left.
class Ticket {
 public:
  explicit Ticket(const at::Tensor& like);
  unsigned* get() const { return ticket_; }

 private:
  at::Tensor of_call_;
  unsigned* ticket_;
};

}  // namespace ganloss::cuda
