// The Python module ganloss_fast._C; its type stub is ganloss_fast/_C.pyi.
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/utils/pybind.h>

#include "cpu/launch.h"
#include "eager_entry.h"
#include "graph_cut/graph_cut.h"
#include "graph_cut/replacements.h"
#include "graph_cut/shared_backward.h"
#include "math/penalty.h"
#include "math/terms.h"
#include "schemas.h"

namespace {

template <size_t count>
std::vector<std::string> names(const char* const (&list)[count]) {
  return {list, list + count};
}

#define GANLOSS_OP_NAME(name, ...) #name,
constexpr const char* kOpNames[] = {GANLOSS_FOR_EACH_OP(GANLOSS_OP_NAME)};

// Runs a backward, which may call Python again, and raise there.
template <typename Backward>
auto below_python(Backward&& backward) {
  try {
    const py::gil_scoped_release no_gil;
    return backward();
  } catch (python_error& error) {
    error.restore();
    throw py::error_already_set();
  }
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Native kernels of ganloss_fast. Importing it registers the ops.";
  ganloss::define_eager_entry(m);
  m.def("op_names", [] { return names(kOpNames); });
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
  m.def("set_stand_in_proof", [](const py::function& proof) {
    ganloss::set_stand_in_proof(
        [proof](const std::string& node) { return proof(node).cast<bool>(); });
  });
  m.def("under_stand_in", &ganloss::under_stand_in);
  m.def("cut_second_order", [](const std::vector<at::Tensor>& grads, int64_t zero_grads,
                               const std::vector<at::Tensor>& parameters,
                               const std::vector<at::Tensor>& hidden, bool fast_weights) {
    auto result = ganloss::cut_second_order(grads, zero_grads, parameters, hidden, fast_weights);
    return std::make_tuple(std::move(result.grads), result.cut, result.nodes, result.compiled);
  });
  using ganloss::SharedBackward;
  py::class_<SharedBackward>(m, "SharedBackward")
      .def(py::init<at::Tensor, std::vector<at::Tensor>>())
      .def_property_readonly("refusal", &SharedBackward::refusal)
      .def_property_readonly("fingerprint", &SharedBackward::fingerprint)
      .def_property_readonly("has_custom_functions", &SharedBackward::has_custom_functions)
      .def_property_readonly("row_indices", &SharedBackward::row_indices)
      .def("gradients",
           [](SharedBackward& shared, const at::Tensor& directions) {
             return below_python([&] { return shared.gradients(directions); });
           })
      .def("compare",
           [](SharedBackward& shared, const at::Tensor& directions, const at::Tensor& factors) {
             return below_python([&] { return shared.compare(directions, factors); });
           })
      .def("join", &SharedBackward::join);
  m.attr("compiler") = __VERSION__;
}
