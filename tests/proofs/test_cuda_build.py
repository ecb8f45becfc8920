"""The CUDA extension on a machine that may have no GPU: registered, traceable, honest errors."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import ganloss_fast
from ganloss_fast import backends, ops
from ganloss_fast.ops import terms
from ganloss_fast.ops.terms import Segment

if backends.HAS_NATIVE:
    from ganloss_fast import _C

OPS = tuple(_C.op_names()) if backends.HAS_NATIVE else ()

pytestmark = pytest.mark.skipif(
    not backends.HAS_CUDA, reason=f"no CUDA kernels: {backends.why_not('native', 'cuda')}"
)
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


@pytest.fixture
def fake_mode():
    with ganloss_fast.use_backend("native"), FakeTensorMode() as mode:
        yield mode


@pytest.mark.parametrize("name", OPS)
def test_ops_are_registered_for_cuda(name):
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"ganloss_fast::{name}", "CUDA")


def test_cuda_tensors_are_served_by_the_native_kernels(fake_mode):
    with ganloss_fast.use_backend("auto"):
        assert backends.is_native(torch.empty(3, device="cuda"))
    assert backends.why_not("native", "cuda") is None


class WithoutMemory(torch.Tensor):
    """A CUDA tensor that is only metadata: it exists where there is no driver."""

    @staticmethod
    def __new__(cls, *shape, dtype=torch.float32):
        return torch.Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device="cuda")

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise AssertionError(f"{function} did not reach its CUDA kernel")


def error_of_cuda_kernel(op, *args) -> Exception:
    """What the CUDA kernel of ``op`` raises, called past the Python key of WithoutMemory."""
    python = torch._C.DispatchKeySet(torch._C.DispatchKey.Python)
    python = python.add(torch._C.DispatchKey.PythonTLSSnapshot)
    with torch._C._ExcludeDispatchKeyGuard(python):
        try:
            op(*args)
        except (RuntimeError, ValueError) as error:
            return error
    raise AssertionError(f"{op} raised nothing")


def arguments_of(name: str) -> tuple:
    """Arguments that the op accepts, on CUDA tensors without memory."""
    x, number = WithoutMemory(3, 5), WithoutMemory()
    segments = ops.flatten_segments([Segment(x, terms.softplus(1.0))])
    penalty = (0, 1.0, 10.0)
    return {
        "multi_tensor_loss": (*segments, True),
        "multi_tensor_loss_backward": (number, None, *segments, [0]),
        "multi_tensor_loss_double_backward": ([x], number, None, *segments, [0], [0]),
        "interpolate": (x, x, WithoutMemory(3)),
        "perturb": (x, 0.5, WithoutMemory(dtype=torch.int64)),
        "norm_penalty": (x, *penalty),
        "norm_penalty_backward": (number, x, WithoutMemory(3), *penalty),
        "norm_penalty_double_backward": (x, number, x, WithoutMemory(3), *penalty),
    }[name]


@without_gpu
@pytest.mark.parametrize("name", OPS)
def test_without_a_driver_the_error_is_that_of_pytorch(name):
    ours = error_of_cuda_kernel(getattr(torch.ops.ganloss_fast, name), *arguments_of(name))
    theirs = error_of_cuda_kernel(torch.ops.aten.mean, WithoutMemory(3))
    assert (type(ours), str(ours)) == (type(theirs), str(theirs))


@without_gpu
def test_the_call_without_a_driver_reaches_our_code():
    """Our checks come first: the error above is that of a kernel that was really called."""
    error = error_of_cuda_kernel(
        torch.ops.ganloss_fast.norm_penalty, WithoutMemory(3, 5), 7, 1.0, 10.0
    )
    assert isinstance(error, ValueError)
    assert str(error).startswith("mode")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("loss", ["bce", "hinge", "least_squares", "wasserstein"])
def test_fake_cuda_tensors_flow_through_the_losses(fake_mode, loss, dtype):
    real = torch.empty(4, 1, 8, 8, device="cuda", dtype=dtype, requires_grad=True)
    fake = torch.empty(4, 1, 8, 8, device="cuda", dtype=dtype, requires_grad=True)
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    for value in (
        ganloss_fast.discriminator_loss([real, real], [fake, fake], loss),
        ganloss_fast.generator_loss(fake, loss),
        ganloss_fast.feature_matching_loss([[real]], [[fake]]),
    ):
        assert (value.shape, value.dtype, value.device.type) == ((), expected, "cuda")
        assert value.requires_grad
        assert "MultiTensorLoss" in value.grad_fn.name()


def test_fake_cuda_tensors_flow_through_interpolation_and_penalty(fake_mode):
    real, fake = (torch.empty(4, 3, 8, 8, device="cuda", requires_grad=True) for _ in range(2))
    x_hat = ganloss_fast.interpolate(real, fake)
    assert (x_hat.shape, x_hat.device.type) == (real.shape, "cuda")
    penalty, norms = ops.norm_penalty(x_hat, "two_sided", 1.0, 10.0)
    assert (penalty.shape, norms.shape, penalty.device.type) == ((), (4,), "cuda")
    assert penalty.requires_grad
    assert not norms.requires_grad


def test_fake_cuda_tensors_flow_through_the_noise(fake_mode):
    x = torch.empty(4, 3, 8, 8, device="cuda", requires_grad=True)
    seed = torch.empty((), device="cuda", dtype=torch.int64)
    moved = ganloss_fast.perturb(x.to(memory_format=torch.channels_last), 0.1, seed)
    assert (moved.shape, moved.device.type) == (x.shape, "cuda")
    assert moved.is_contiguous(memory_format=torch.channels_last)
    assert moved.requires_grad
    with pytest.raises(ValueError, match="seed: expected the device of inputs"):
        ganloss_fast.perturb(x, 0.1, torch.zeros((), dtype=torch.int64, device="cpu"))


def test_fake_cuda_tensors_flow_through_both_backward_ops(fake_mode):
    """Called directly: the autograd engine itself needs a driver for CUDA tensors."""
    a = torch.empty(5, 7, device="cuda", dtype=torch.bfloat16)
    mean = torch.empty((), device="cuda")
    segments = ops.flatten_segments([Segment(a, terms.softplus(1.0), b=mean)])
    one = torch.empty((), device="cuda")
    calls = torch.ops.ganloss_fast
    gradients = calls.multi_tensor_loss_backward(one, None, *segments, [0, 1])
    assert [(g.shape, g.dtype) for g in gradients] == [(a.shape, a.dtype), ((), torch.float32)]
    total, values, second = calls.multi_tensor_loss_double_backward(
        gradients, one, None, *segments, [0, 1], [0]
    )
    assert (total.shape, values.shape, second[0].shape) == ((), (1,), a.shape)


def test_package_reports_what_was_built():
    assert backends.BUILD_FACTS["built"] == "cuda"
    assert "cuda" not in backends.BUILD_FACTS["reasons"]
