"""The way of the op tests to a GPU (tests/on_gpu.py), walked with the CPU as the device."""

from __future__ import annotations

import pytest
import torch
from layouts import LAYOUTS
from on_gpu import OnDevice, moved, native_kernel, why_not
from oracle import TRUTHS, draw_segment, inputs_of, same_bits

from ganloss_fast import ops


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_moved_tensor_lies_as_the_original(layout):
    tensor = LAYOUTS[layout](torch.bfloat16)
    copy = moved(tensor, "cpu")
    assert torch.equal(copy, tensor)
    assert copy.stride() == tensor.stride()
    assert copy.storage_offset() == tensor.storage_offset()
    assert copy.untyped_storage().data_ptr() != tensor.untyped_storage().data_ptr()


def test_a_negative_view_stays_one():
    tensor = torch.complex(torch.zeros(3), torch.arange(3.0)).conj().imag
    copy = moved(tensor, "cpu")
    assert copy.is_neg()
    assert torch.equal(copy, tensor)


def test_ops_run_on_copies_and_give_what_they_give_elsewhere(native):
    def orders():
        torch.manual_seed(0)
        term = TRUTHS["softplus(z)"].term
        segments = [draw_segment(term, "w, a - b", (3, 5), torch.float32) for _ in range(2)]
        inputs = inputs_of(segments)
        total = ops.multi_tensor_loss(segments).total
        first = torch.autograd.grad(total, inputs, create_graph=True)
        return [total, *first, *torch.autograd.grad(sum(g.sum() for g in first), inputs)]

    expected = orders()
    with OnDevice(native_kernel, "cpu") as device:
        actual = orders()
    assert device.launched == 3
    assert all(same_bits(x.detach(), y.detach()) for x, y in zip(actual, expected))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_there_is_a_reason():
    assert "no GPU" in why_not("native")
    assert "no GPU" in why_not("triton")
