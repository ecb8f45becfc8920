// Every op, declared once.
//
// A row is  DO(name, parameters, schema, result):  the schema as Python and the compiler see it,
// parameters and result as C++ does. From this table come the C++ functions (ops.h), the stubs that
// go through the dispatcher (ops.cpp), all registrations (registration.cpp, cuda/registration.cpp),
// the refusal of vmap, the list that Python reads as _C.op_names(), and the emulated ops of
// tests/proofs/harness. What an op computes is said at its reference, ganloss_fast/ops.
//
// The segments of a loss take seven lists. Lists in a schema must be dense, so `operands` says for
// each segment what it takes: 1 for the next of b, plus 2 for the next weight. `parameters` holds
// two for each segment. `wanted` and `wanted_second` are indices into  a ++ b,  and gradients come
// in that order; `directions` are the gradients of the outputs of a backward, one for each
// `wanted`.
#pragma once

#define GANLOSS_SEGMENT_PARAMETERS                                                      \
  at::TensorList a, at::TensorList b, at::TensorList weights, at::IntArrayRef operands, \
      at::IntArrayRef terms, at::ArrayRef<double> parameters, at::ArrayRef<double> scale
#define GANLOSS_SEGMENT_ARGUMENTS a, b, weights, operands, terms, parameters, scale
#define GANLOSS_SEGMENT_SCHEMA                                              \
  "Tensor[] a, Tensor[] b, Tensor[] weights, int[] operands, int[] terms, " \
  "float[] parameters, float[] scale"

// clang-format off: one look for every row
#define GANLOSS_FOR_EACH_OP(DO)                                                                   \
  /* total [], values [S], statistics [S, 4] or [0, 4] */                                         \
  DO(multi_tensor_loss,                                                                           \
     (GANLOSS_SEGMENT_PARAMETERS, bool with_statistics),                                          \
     "(" GANLOSS_SEGMENT_SCHEMA ", bool with_statistics)"                                         \
     " -> (Tensor total, Tensor values, Tensor statistics)",                                      \
     std::tuple<at::Tensor, at::Tensor, at::Tensor>)                                              \
                                                                                                  \
  /* the gradients of `wanted` */                                                                 \
  DO(multi_tensor_loss_backward,                                                                  \
     (const std::optional<at::Tensor>& grad_total, const std::optional<at::Tensor>& grad_values,  \
      GANLOSS_SEGMENT_PARAMETERS, at::IntArrayRef wanted),                                        \
     "(Tensor? grad_total, Tensor? grad_values, " GANLOSS_SEGMENT_SCHEMA ", int[] wanted)"        \
     " -> Tensor[]",                                                                              \
     std::vector<at::Tensor>)                                                                     \
                                                                                                  \
  /* grad of grad_total [], grad of grad_values [S], the gradients of `wanted_second` */          \
  DO(multi_tensor_loss_double_backward,                                                           \
     (at::TensorList directions, const std::optional<at::Tensor>& grad_total,                     \
      const std::optional<at::Tensor>& grad_values, GANLOSS_SEGMENT_PARAMETERS,                   \
      at::IntArrayRef wanted, at::IntArrayRef wanted_second),                                     \
     "(Tensor[] directions, Tensor? grad_total, Tensor? grad_values, " GANLOSS_SEGMENT_SCHEMA     \
     ", int[] wanted, int[] wanted_second) -> (Tensor, Tensor, Tensor[])",                        \
     std::tuple<at::Tensor, at::Tensor, std::vector<at::Tensor>>)                                 \
                                                                                                  \
  /* alpha: [], [B] or the shape of real */                                                       \
  DO(interpolate,                                                                                 \
     (const at::Tensor& real, const at::Tensor& fake, const at::Tensor& alpha),                   \
     "(Tensor real, Tensor fake, Tensor alpha) -> Tensor",                                        \
     at::Tensor)                                                                                  \
                                                                                                  \
  /* inputs + sigma * standard normal noise of Philox under the seed [] (int64): math/philox.h */ \
  DO(perturb,                                                                                     \
     (const at::Tensor& inputs, double sigma, const at::Tensor& seed),                            \
     "(Tensor inputs, float sigma, Tensor seed) -> Tensor",                                       \
     at::Tensor)                                                                                  \
                                                                                                  \
  /* gradient [B, ...] -> penalty [], norms [B] */                                                \
  DO(norm_penalty,                                                                                \
     (const at::Tensor& gradient, int64_t mode, double target, double scale),                     \
     "(Tensor gradient, int mode, float target, float scale) -> (Tensor penalty, Tensor norms)",  \
     std::tuple<at::Tensor, at::Tensor>)                                                          \
                                                                                                  \
  /* the gradient of gradient [B, ...] */                                                         \
  DO(norm_penalty_backward,                                                                       \
     (const at::Tensor& grad_penalty, const at::Tensor& gradient, const at::Tensor& norms,        \
      int64_t mode, double target, double scale),                                                 \
     "(Tensor grad_penalty, Tensor gradient, Tensor norms, int mode, float target, float scale)"  \
     " -> Tensor",                                                                                \
     at::Tensor)                                                                                  \
                                                                                                  \
  /* grad of grad_penalty [], the gradient of gradient [B, ...] */                                \
  DO(norm_penalty_double_backward,                                                                \
     (const at::Tensor& direction, const at::Tensor& grad_penalty, const at::Tensor& gradient,    \
      const at::Tensor& norms, int64_t mode, double target, double scale),                        \
     "(Tensor direction, Tensor grad_penalty, Tensor gradient, Tensor norms, int mode, "          \
     "float target, float scale) -> (Tensor, Tensor)",                                            \
     std::tuple<at::Tensor, at::Tensor>)
// clang-format on
