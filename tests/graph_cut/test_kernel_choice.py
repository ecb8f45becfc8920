"""graph_cut="fast" takes the kernel of an ordinary backward where it is the faster one."""

from __future__ import annotations

import copy

import pytest
import torch
from convolutions import CountConvolutions
from torch import nn

import ganloss_fast as gf
from ganloss_fast import backends
from ganloss_fast._torch import without_onednn

pytestmark = pytest.mark.skipif(not backends.HAS_NATIVE, reason="needs the native extension")

LINE, IMAGE = (2, 32, 512), (2, 32, 24, 24)


def takes_the_backward_kernel(layer: nn.Module, shape, dtype=torch.float32, device="cpu") -> bool:
    layer, x = copy.deepcopy(layer).to(device, dtype), torch.ones(shape, dtype=dtype, device=device)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    gradient = gf.cut_second_order(gradient, fast_weights=True)
    with CountConvolutions() as count:
        torch.autograd.grad(gradient.square().sum(), layer.weight)
    # The genuine branch, of the square, has one in any case.
    return count.calls["convolution_backward"] == 2


FASTER = {
    "dense": (nn.Conv2d(32, 64, 4, 2, 1), IMAGE),
    "1x1": (nn.Conv2d(32, 64, 1), IMAGE),
    "groups of whole blocks": (nn.Conv2d(32, 64, 3, padding=1, groups=4), IMAGE),
    "small groups": (nn.Conv2d(32, 32, 3, padding=1, groups=32), (2, 32, 8, 8)),
    "small groups of a large image": (nn.Conv2d(32, 32, 3, padding=1, groups=32), (2, 32, 64, 64)),
    "dilated": (nn.Conv2d(32, 32, 3, padding=4, dilation=4), IMAGE),
    "transposed": (nn.ConvTranspose2d(32, 64, 4, 2, 1), IMAGE),
    "one dimension, a short kernel": (nn.Conv1d(32, 64, 11, padding=5), LINE),
    "three dimensions": (nn.Conv3d(16, 32, 3, padding=1), (1, 16, 4, 8, 8)),
    "a video's colours": (nn.Conv3d(3, 32, 3, padding=1), (1, 3, 8, 16, 16)),
    "of a column": (nn.Conv2d(32, 64, (5, 1), (3, 1), (2, 0)), (2, 32, 81, 3)),
}
SLOWER = {
    "a long kernel": (nn.Conv1d(32, 32, 41, 4, 20, groups=4), LINE),
    "an image no wider than the kernel": (nn.Conv2d(32, 64, 4, 2, 1), (8, 32, 8, 8)),
    "depthwise, large": (nn.Conv2d(32, 32, 7, padding=3, groups=32), (2, 32, 48, 48)),
    "groups of part of a block": (nn.Conv2d(48, 48, 3, padding=1, groups=4), (2, 48, 32, 32)),
    "a volume of part of a block": (nn.Conv3d(8, 32, 3, padding=1), (1, 8, 8, 16, 16)),
    "groups in three dimensions": (nn.Conv3d(32, 32, 3, padding=1, groups=4), (1, 32, 8, 8, 8)),
}


@pytest.mark.parametrize("name", FASTER)
def test_where_the_backward_kernel_is_faster(name):
    assert takes_the_backward_kernel(*FASTER[name])


@pytest.mark.parametrize("name", SLOWER)
def test_where_it_is_slower(name):
    assert not takes_the_backward_kernel(*SLOWER[name])


@pytest.mark.parametrize("name", SLOWER)
def test_a_device_with_a_launch_for_each_call_never_takes_a_convolution_for_each_group(name):
    layer, shape = SLOWER[name]
    assert takes_the_backward_kernel(layer, shape, device="meta")


@pytest.mark.parametrize("name", [name for name in SLOWER if name != "a long kernel"])
def test_without_onednn_the_limits_of_its_kernels_do_not_count(name):
    layer, shape = SLOWER[name]
    assert takes_the_backward_kernel(layer, shape, torch.float64)
    with without_onednn():
        assert takes_the_backward_kernel(layer, shape)
