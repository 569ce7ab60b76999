// Every operator of the extension. Kernels register themselves at the foot of their files; fake kernels and derivatives are in Python.
//
// Each forward takes the features and what weighs them; each backward takes nothing that the forward would have to keep beyond those two.
// Forms: output and gradients have the memory format of input.
#include <Python.h>
#include <torch/library.h>
#include <torch/version.h>

#define MMPOOL_WINDOW "int[2] kernel_size, int[2] stride, int[2] padding, int[2] dilation, bool ceil_mode"

TORCH_LIBRARY(mmpool_ext, m) {
#if TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 2
  const std::vector<at::Tag> tags{at::Tag::pt2_compliant_tag};
#else
  const std::vector<at::Tag> tags;
#endif
  // sum(exp(logit) * input) / sum(exp(logit)); logit lies on the pixels
  m.def("lip_pool2d(Tensor input, Tensor logit, " MMPOOL_WINDOW ") -> Tensor", tags);
  m.def("lip_pool2d_backward(Tensor grad_output, Tensor input, Tensor logit, " MMPOOL_WINDOW ") -> (Tensor, Tensor)", tags);
  // the same with the logit gate_scale * sigmoid(norm(response)): norm is an affine instance normalisation, or nothing without weight and bias; the
  // second output is what backward needs of it
  m.def("gated_lip_pool2d(Tensor input, Tensor response, Tensor? weight, Tensor? bias, float eps, float gate_scale, " MMPOOL_WINDOW ") -> (Tensor, Tensor)", tags);
  m.def(
      "gated_lip_pool2d_backward(Tensor grad_output, Tensor input, Tensor response, Tensor coefficients, float gate_scale, " MMPOOL_WINDOW
      ") -> (Tensor, Tensor, Tensor, Tensor)",
      tags);
  // max(0, norm(input))
  m.def("instance_norm_relu(Tensor input, Tensor weight, Tensor bias, float eps) -> (Tensor, Tensor)", tags);
  m.def("instance_norm_relu_backward(Tensor grad_output, Tensor input, Tensor coefficients) -> (Tensor, Tensor, Tensor)", tags);
  // sum(importance * input) / sum(importance); importance lies on the pixels
  m.def("lan_pool2d(Tensor input, Tensor importance, " MMPOOL_WINDOW ") -> Tensor", tags);
  m.def("lan_pool2d_backward(Tensor grad_output, Tensor input, Tensor importance, " MMPOOL_WINDOW ") -> (Tensor, Tensor)", tags);
  // sum(exp(input) * input) / sum(exp(input))
  m.def("soft_pool2d(Tensor input, " MMPOOL_WINDOW ") -> Tensor", tags);
  m.def("soft_pool2d_backward(Tensor grad_output, Tensor input, " MMPOOL_WINDOW ") -> Tensor", tags);
  // sum(input ** (alpha + 1)) / sum(input ** alpha); alpha has the shape of the output
  m.def("polynomial_pool2d(Tensor input, Tensor alpha, " MMPOOL_WINDOW ") -> Tensor", tags);
  m.def("polynomial_pool2d_backward(Tensor grad_output, Tensor input, Tensor alpha, " MMPOOL_WINDOW ") -> (Tensor, Tensor)", tags);
}

// Importing the module loads the library. The text is looked up in the file when the library does not load.
extern "C" __attribute__((visibility("default"))) PyObject* PyInit__C(void) {
  static const char built[] = "mmpool_ext was built for torch " TORCH_VERSION;
  static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_C", built, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&definition);
}
