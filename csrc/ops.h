// The ops of schemas.h as C++ functions.
//
// ganloss::norm_penalty and the like go through the dispatcher, so a call from an autograd node
// finds the backend of its tensors, and a tracer sees it. ganloss::cpu::norm_penalty and
// ganloss::cuda::norm_penalty are what it finds: cpu/norm_penalty.cpp, cuda/norm_penalty.cpp.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>
#include <vector>

#include "schemas.h"

namespace ganloss {

using Tensors = std::vector<at::Tensor>;

#define GANLOSS_DECLARE_OP(name, parameters, schema, ...) \
  namespace cpu {                                         \
  auto name parameters->__VA_ARGS__;                      \
  }                                                       \
  namespace cuda {                                        \
  auto name parameters->__VA_ARGS__;                      \
  }                                                       \
  extern decltype(cpu::name)* const name;

GANLOSS_FOR_EACH_OP(GANLOSS_DECLARE_OP)
#undef GANLOSS_DECLARE_OP

}  // namespace ganloss
