// The CUDA ops, compiled for the CPU, under the test-only namespace ganloss_fast_emulated.
//
// emulation.py routes the real ops of CPU tensors here, so that autograd and the public functions
// run on the emulated kernels without knowing it.
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "cuda/ticket.h"
#include "ops.h"

namespace harness {
long count_launches();
long count_memsets();
void set_schedule(long seed);
}  // namespace harness

TORCH_LIBRARY(ganloss_fast_emulated, m) {
#define GANLOSS_DEFINE_EMULATED(name, parameters, schema, ...) m.def(#name schema);
  GANLOSS_FOR_EACH_OP(GANLOSS_DEFINE_EMULATED)
  m.def("launches() -> int", [] { return static_cast<int64_t>(harness::count_launches()); });
  m.def("set_schedule(int seed) -> ()", [](int64_t seed) { harness::set_schedule(seed); });
  m.def("memsets() -> int", [] { return static_cast<int64_t>(harness::count_memsets()); });
  m.def("set_stream(int handle, bool is_capturing) -> ()", [](int64_t handle, bool is_capturing) {
    c10::cuda::current_stream_of_harness = reinterpret_cast<cudaStream_t>(handle);
    c10::cuda::is_capturing_in_harness = is_capturing;
  });
  // The address and the value of the ticket that a call would take now.
  m.def("ticket() -> (int, int)", [] {
    const ganloss::cuda::Ticket ticket(at::empty({0}));
    return std::tuple(reinterpret_cast<int64_t>(ticket.get()), static_cast<int64_t>(*ticket.get()));
  });
}

TORCH_LIBRARY_IMPL(ganloss_fast_emulated, CPU, m) {
#define GANLOSS_EMULATE(name, ...) m.impl(#name, &ganloss::cuda::name);
  GANLOSS_FOR_EACH_OP(GANLOSS_EMULATE)
}
