// Every op schema on one screen, and the Python module that carries the build facts.
#include <torch/csrc/utils/pybind.h>
#include <torch/library.h>

#include "autograd/graph_cut.h"
#include "cpu/launch.h"
#include "eager_entry.h"
#include "math/penalty.h"
#include "math/terms.h"

// operands: for each segment, 1 if it takes the next of b, plus 2 if it takes the next weight.
// parameters: two for each segment. wanted: indices into a ++ b.
#define SEGMENTS                                                            \
  "Tensor[] a, Tensor[] b, Tensor[] weights, int[] operands, int[] terms, " \
  "float[] parameters, float[] scale"

TORCH_LIBRARY(ganloss_fast, m) {
  const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag};
  m.def("multi_tensor_loss(" SEGMENTS
        ", bool with_statistics) -> (Tensor total, Tensor values, Tensor statistics)",
        tags);
  m.def("multi_tensor_loss_backward(Tensor? grad_total, Tensor? grad_values, " SEGMENTS
        ", int[] wanted) -> Tensor[]",
        tags);
  m.def(
      "multi_tensor_loss_double_backward(Tensor[] directions, Tensor? grad_total, "
      "Tensor? grad_values, " SEGMENTS
      ", int[] wanted, int[] wanted_second) "
      "-> (Tensor, Tensor, Tensor[])",
      tags);

  m.def("interpolate(Tensor real, Tensor fake, Tensor alpha) -> Tensor", tags);
  m.def("perturb(Tensor inputs, float sigma, Tensor seed) -> Tensor", tags);

  m.def(
      "norm_penalty(Tensor gradient, int mode, float target, float scale) "
      "-> (Tensor penalty, Tensor norms)",
      tags);
  m.def(
      "norm_penalty_backward(Tensor grad_penalty, Tensor gradient, Tensor norms, "
      "int mode, float target, float scale) -> Tensor",
      tags);
  m.def(
      "norm_penalty_double_backward(Tensor direction, Tensor grad_penalty, "
      "Tensor gradient, Tensor norms, int mode, float target, float scale) "
      "-> (Tensor, Tensor)",
      tags);
}

namespace {

template <size_t count>
std::vector<std::string> names(const char* const (&list)[count]) {
  return {list, list + count};
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Native kernels of ganloss_fast. Importing it registers the ops.";
  ganloss::define_eager_entry(m);
  m.def("term_names", [] { return names(ganloss::math::kTermNames); });
  m.def("penalty_mode_names", [] { return names(ganloss::math::kPenaltyModeNames); });
  m.def("available_cpu_isas", &ganloss::cpu::available_isas);
  m.def("cpu_isa", [] { return std::string(ganloss::cpu::kernels().isa); });
  m.def("select_cpu_isa", &ganloss::cpu::select_isa);

  // The graph cut works on autograd nodes, which no op schema can carry.
  m.def("set_row_lookup", [](const py::function& lookup) {
    ganloss::set_row_lookup([lookup](const std::string& node) -> std::optional<ganloss::CutRow> {
      const py::object row = lookup(node);
      if (row.is_none()) return std::nullopt;
      return ganloss::CutRow{row.attr("edge").cast<int64_t>(), row.attr("real_only").cast<bool>(),
                             row.attr("idle_input").cast<int64_t>()};
    });
  });
  m.def("cut_second_order", [](const std::vector<at::Tensor>& grads, int64_t zero_grads,
                               const std::vector<at::Tensor>& parameters,
                               const std::vector<at::Tensor>& hidden, bool fast_weights) {
    auto result = ganloss::cut_second_order(grads, zero_grads, parameters, hidden, fast_weights);
    return std::make_tuple(std::move(result.grads), result.cut, result.nodes, result.compiled);
  });
  m.attr("compiler") = __VERSION__;
}
