#include "eager_entry.h"

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

pybind11::tuple multi_tensor_loss_eager(const pybind11::list& segments, bool with_statistics) {
  Small<at::Tensor> a, b, weights;
  Small<int64_t> operands, terms;
  Small<double> parameters, scale;
  for (pybind11::handle segment : segments) {
    PyObject* fields = segment.ptr();
    a.push_back(tensor_of(item(fields, kA, kSegmentFields)));
    PyObject* term = item(fields, kTerm, kSegmentFields);
    terms.push_back(static_cast<int64_t>(number_of(item(term, kCode, kTermFields))));
    parameters.push_back(number_of(item(term, kFirst, kTermFields)));
    parameters.push_back(number_of(item(term, kSecond, kTermFields)));
    scale.push_back(number_of(item(fields, kScale, kSegmentFields)));
    int64_t taken = 0;
    PyObject* other = item(fields, kB, kSegmentFields);
    if (other != Py_None) {
      b.push_back(tensor_of(other));
      taken |= kHasB;
    }
    PyObject* weight = item(fields, kWeight, kSegmentFields);
    if (weight != Py_None) {
      weights.push_back(tensor_of(weight));
      taken |= kHasWeight;
    }
    operands.push_back(taken);
  }
  std::tuple<at::Tensor, at::Tensor, at::Tensor> outputs;
  {
    pybind11::gil_scoped_release no_gil;
    outputs = multi_tensor_loss(a, b, weights, operands, terms, parameters, scale, with_statistics);
  }
  return pybind11::make_tuple(std::get<0>(outputs), std::get<1>(outputs), std::get<2>(outputs));
}

}  // namespace

void define_eager_entry(pybind11::module_& m) {
  m.def("multi_tensor_loss", &multi_tensor_loss_eager);
}

}  // namespace ganloss
