"""A launch happens on the device of its tensors, whatever the current one: by fake tensors."""

from __future__ import annotations

import os
from unittest import mock

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves

pytest.importorskip("triton")
from triton.runtime.jit import JITFunction

from ganloss_fast.ops.triton import launchers

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("TRITON_INTERPRET=1: its launches are not Triton's", allow_module_level=True)


class Machine:
    """Two GPUs, the first of them current, as far as torch.cuda.device_of and a launch ask."""

    def __init__(self) -> None:
        self.current = 0
        self.launches: list[tuple[int, set[int]]] = []  # current device, those of the tensors

    def exchange(self, device: int) -> int:
        before = self.current
        if device >= 0:
            self.current = device
        return before

    def run(self, *arguments: object, **keywords: object) -> None:
        tensors = [x for x in tree_leaves(arguments) if isinstance(x, torch.Tensor)]
        self.launches.append((self.current, {x.get_device() for x in tensors}))


@pytest.fixture
def machine():
    machine = Machine()
    with (
        FakeTensorMode(),
        mock.patch.object(torch.cuda, "_exchange_device", machine.exchange),
        mock.patch.object(torch.cuda, "_maybe_exchange_device", machine.exchange),
        mock.patch.object(JITFunction, "run", machine.run),
    ):
        yield machine


def loss(x, one, norms):
    """A long segment and a short one: with and without a workspace."""
    segments = [x, norms], [], [], [0, 0], [0, 0], [1.0, 0.0] * 2, [1.0, 1.0]
    launchers.multi_tensor_loss(*segments, True)


def gradient(x, one, norms):
    segments = [x], [one], [], [1], [0], [1.0, 0.0], [1.0]
    launchers.multi_tensor_loss_backward(one, None, *segments, [0, 1])


def second_order(x, one, norms):
    segments = [x], [one], [], [1], [0], [1.0, 0.0], [1.0]
    launchers.multi_tensor_loss_double_backward([x, one], one, None, *segments, [0, 1], [0, 1])


def noise(x, one, norms):
    launchers.perturb(x, 0.1, torch.zeros((), dtype=torch.int64, device=x.device))


CALLS = {
    "multi_tensor_loss": loss,
    "multi_tensor_loss_backward": gradient,
    "multi_tensor_loss_double_backward": second_order,
    "interpolate": lambda x, one, norms: launchers.interpolate(x, x, norms),
    "perturb": noise,
    "norm_penalty": lambda x, *_: launchers.norm_penalty(x, 0, 1.0, 1.0),
    "norm_penalty_backward": lambda x, one, norms: launchers.norm_penalty_backward(
        one, x, norms, 0, 1.0, 1.0
    ),
    "norm_penalty_double_backward": lambda x, one, norms: launchers.norm_penalty_double_backward(
        x, one, x, norms, 0, 1.0, 1.0
    ),
}


@pytest.mark.parametrize("device", [0, 1])
@pytest.mark.parametrize("name", launchers.__all__)
def test_a_launch_happens_on_the_device_of_its_tensors(machine, name, device):
    x = torch.empty(3, 5000, device=f"cuda:{device}")
    one, norms = (torch.empty(shape, device=x.device) for shape in ((), (3,)))
    CALLS[name](x, one, norms)
    assert machine.launches
    assert all(launch == (device, {device}) for launch in machine.launches)
    assert machine.current == 0
