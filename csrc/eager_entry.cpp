#include "eager_entry.h"

#include <c10/util/ArrayRef.h>
#include <c10/util/SmallVector.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/pybind.h>

#include "host/segments.h"
#include "ops.h"

namespace ganloss {

namespace {

// Field order of ganloss_fast.ops.terms.Segment and Term.
enum SegmentField { kA, kTerm, kScale, kB, kWeight, kSegmentFields };
enum TermField { kCode, kFirst, kSecond, kTermFields };

PyObject* item(PyObject* tuple, int index, int size) {
  TORCH_CHECK_TYPE(PyTuple_Check(tuple) && PyTuple_GET_SIZE(tuple) == size,
                   "segments: expected terms.Segment tuples");
  return PyTuple_GET_ITEM(tuple, index);
}

const at::Tensor& tensor_of(PyObject* object) {
  TORCH_CHECK_TYPE(THPVariable_Check(object), "segments: expected tensors, got ",
                   Py_TYPE(object)->tp_name);
  return THPVariable_Unpack(object);
}

double number_of(PyObject* object) {
  const double value = PyFloat_AsDouble(object);
  if (value == -1.0 && PyErr_Occurred()) throw pybind11::error_already_set();
  return value;
}

template <typename T>
using Small = c10::SmallVector<T, 8>;

// The op's arguments, segment by segment.
struct Arguments {
  Small<at::Tensor> a, b, weights;
  Small<int64_t> operands, terms;
  Small<double> parameters, scale;

  void add(const at::Tensor& tensor, PyObject* term, double factor) {
    a.push_back(tensor);
    terms.push_back(static_cast<int64_t>(number_of(item(term, kCode, kTermFields))));
    parameters.push_back(number_of(item(term, kFirst, kTermFields)));
    parameters.push_back(number_of(item(term, kSecond, kTermFields)));
    scale.push_back(factor);
    operands.push_back(0);
  }
  void add_b(PyObject* tensor) {
    b.push_back(tensor_of(tensor));
    operands.back() |= kHasB;
  }
  void add_weight(PyObject* tensor) {
    weights.push_back(tensor_of(tensor));
    operands.back() |= kHasWeight;
  }
  auto call(bool with_statistics) const {
    const pybind11::gil_scoped_release no_gil;
    return multi_tensor_loss(a, b, weights, operands, terms, parameters, scale, with_statistics);
  }
};

pybind11::tuple multi_tensor_loss_eager(const pybind11::list& segments, bool with_statistics) {
  Arguments arguments;
  for (pybind11::handle segment : segments) {
    PyObject* fields = segment.ptr();
    arguments.add(tensor_of(item(fields, kA, kSegmentFields)), item(fields, kTerm, kSegmentFields),
                  number_of(item(fields, kScale, kSegmentFields)));
    PyObject* b = item(fields, kB, kSegmentFields);
    if (b != Py_None) arguments.add_b(b);
    PyObject* weight = item(fields, kWeight, kSegmentFields);
    if (weight != Py_None) arguments.add_weight(weight);
  }
  const auto [total, values, statistics] = arguments.call(with_statistics);
  return pybind11::make_tuple(total, values, statistics);
}

// What the checks of the public functions let pass in the usual case: exactly a torch.Tensor,
// dense, of a dtype that the kernels have.
bool is_plain(PyObject* object) {
  if (Py_TYPE(object) != reinterpret_cast<PyTypeObject*>(THPVariableClass)) return false;
  const at::Tensor& tensor = THPVariable_Unpack(object);
  return tensor.layout() == at::kStrided && is_supported(tensor.scalar_type());
}

// The outputs of a critic: a tensor, or a list or tuple of tensors.
c10::ArrayRef<PyObject*> outputs_of(PyObject*& value) {
  if (!PyList_Check(value) && !PyTuple_Check(value)) return {&value, 1};
  return {PySequence_Fast_ITEMS(value), static_cast<size_t>(PySequence_Fast_GET_SIZE(value))};
}

// Field order of ganloss_fast.ops.terms.SideOfLoss.
enum SideField { kOutputs, kSummands, kSideScale, kSideFields };

// The total over sides, or None where a side has no summands, an output is not plain or lies on
// another device, or the sides have not as many outputs.
std::optional<at::Tensor> total_of_sides_eager(const pybind11::tuple& sides) {
  Arguments arguments;
  std::optional<size_t> count;
  for (pybind11::handle side : sides) {
    PyObject* value = item(side.ptr(), kOutputs, kSideFields);
    PyObject* summands = item(side.ptr(), kSummands, kSideFields);
    const double scale = number_of(item(side.ptr(), kSideScale, kSideFields));
    const c10::ArrayRef<PyObject*> outputs = outputs_of(value);
    if (!PyTuple_Check(summands)) return std::nullopt;
    if (outputs.empty() || outputs.size() != count.value_or(outputs.size())) return std::nullopt;
    count = outputs.size();
    for (PyObject* output : outputs) {
      if (!is_plain(output)) return std::nullopt;
      const at::Tensor& tensor = THPVariable_Unpack(output);
      if (!arguments.a.empty() && tensor.device() != arguments.a[0].device()) return std::nullopt;
      for (Py_ssize_t k = 0; k < PyTuple_GET_SIZE(summands); ++k) {
        PyObject* summand = PyTuple_GET_ITEM(summands, k);
        arguments.add(tensor, item(summand, 0, 2), scale * number_of(item(summand, 1, 2)));
      }
    }
  }
  return std::get<0>(arguments.call(false));
}

}  // namespace

void define_eager_entry(pybind11::module_& m) {
  m.def("multi_tensor_loss", &multi_tensor_loss_eager);
  m.def("total_of_sides", &total_of_sides_eager);
}

}  // namespace ganloss
