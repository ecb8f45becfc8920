// The ops as torch knows them: their schemas, the CPU kernels, and what vmap is told. Autograd is
// registered beside its nodes (autograd/), CUDA where it is built (cuda/registration.cpp).
#include <torch/library.h>

#include "ops.h"

namespace ganloss {

TORCH_LIBRARY(ganloss_fast, m) {
  const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag};
#define GANLOSS_DEFINE_SCHEMA(name, parameters, schema, ...) m.def(#name schema, tags);
  GANLOSS_FOR_EACH_OP(GANLOSS_DEFINE_SCHEMA)
}

TORCH_LIBRARY_IMPL(ganloss_fast, CPU, m) {
#define GANLOSS_REGISTER_CPU(name, ...) m.impl(#name, &cpu::name);
  GANLOSS_FOR_EACH_OP(GANLOSS_REGISTER_CPU)
}

// vmap would run a slow loop, or fail with a message about boxing.
void refuse_vmap(const c10::OperatorHandle& op, torch::jit::Stack*) {
  TORCH_CHECK_NOT_IMPLEMENTED(false, op.schema().name(),
                              " has no batching rule for torch.vmap: a loss is a mean over its "
                              "whole batch. Use ganloss_fast.use_backend('reference') under vmap.");
}

TORCH_LIBRARY_IMPL(ganloss_fast, FuncTorchBatched, m) {
#define GANLOSS_REFUSE_VMAP(name, ...) \
  m.impl(#name, torch::CppFunction::makeFromBoxedFunction<&refuse_vmap>());
  GANLOSS_FOR_EACH_OP(GANLOSS_REFUSE_VMAP)
}

}  // namespace ganloss
