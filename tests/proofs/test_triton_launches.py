"""What a call of a Triton launcher launches, and for what it compiles a kernel of its own."""

from __future__ import annotations

import os
import re

import pytest
import torch

pytestmark = pytest.mark.gpu_proof

triton = pytest.importorskip("triton")

import triton_compile
from triton_calls import COUNT, gradient_of_list, joined, loss_of_list, segment

from ganloss_fast.ops.triton import launchers

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("TRITON_INTERPRET=1: nothing is compiled", allow_module_level=True)
if not triton.__version__.startswith(triton_compile.SUPPORTED):
    pytest.skip(
        f"for Triton {triton_compile.SUPPORTED}x, not {triton.__version__}",
        allow_module_level=True,
    )


def launch_count(call) -> int:
    return len(triton_compile.launches_of(call, "sm_90"))


@pytest.mark.parametrize(("operands", "size"), [("a", 8), ("pair", 54)])
def test_a_list_is_one_launch_forward_and_one_backward(operands, size):
    """The outputs of HiFi-GAN's discriminators; the maps of its feature matching."""
    assert launch_count(lambda: loss_of_list(torch.float32, operands, size)) == 1
    assert launch_count(lambda: gradient_of_list(torch.float32, operands, size)) == 1


def test_a_list_of_all_kinds_is_one_launch_of_every_order():
    """Every term, every dtype, all that may stand beside a."""
    segments = [
        segment(torch.float16, "a", 0),
        segment(torch.bfloat16, "pair", 1),
        segment(torch.float32, "scalar", 2),
        segment(torch.float64, "weight", 3),
        segment(torch.float32, "pair weight", 4),
    ]
    lists = joined(segments)
    a, b = lists[:2]
    scalar = torch.empty((), dtype=torch.float64)
    wanted = list(range(len(a) + len(b)))
    directions = [*a, *b]
    assert launch_count(lambda: launchers.multi_tensor_loss(*lists, True)) == 1
    assert (
        launch_count(lambda: launchers.multi_tensor_loss_backward(scalar, None, *lists, wanted))
        == 1
    )
    assert (
        launch_count(
            lambda: launchers.multi_tensor_loss_double_backward(
                directions, scalar, None, *lists, wanted, wanted
            )
        )
        == 1
    )


def test_a_long_list_is_cut_into_equal_launches():
    launches = triton_compile.launches_of(lambda: loss_of_list(torch.float32, "a", 108), "sm_90")
    assert len(launches) == 2
    assert launches[0].kernel is launches[1].kernel


def test_a_single_program_needs_no_workspace():
    """A tile at most: no ticket, no partial sums, whatever the order."""
    a, one = torch.empty(100), torch.empty(())
    of_one = [a], [one], [], [1], [0], [1.0, 0.0], [1.0]
    for call in (
        lambda: launchers.multi_tensor_loss(*of_one, True),
        lambda: launchers.multi_tensor_loss_backward(one, None, *of_one, [0, 1]),
        lambda: launchers.multi_tensor_loss_double_backward(
            [a, one], one, None, *of_one, [0, 1], [0, 1]
        ),
    ):
        (launch,) = triton_compile.launches_of(call, "sm_90")
        assert "atom." not in triton_compile.read(launch.kernel).text


def test_lengths_and_label_values_do_not_compile_anew():
    """One kernel for every length of 32 bits, whatever its divisors, and for every label."""
    kernels = set()
    for count, label in ((COUNT, 1.0), (1 << 20, 0.9), (17, 0.0), (1024, -1.0)):
        a = torch.empty(count)
        (launch,) = triton_compile.launches_of(
            lambda a=a, label=label: launchers.multi_tensor_loss_backward(
                a.new_empty(()), None, [a], [], [], [0], [2], [label, 0.0], [label], [0]
            ),
            "sm_90",
        )
        kernels.add(id(launch.kernel))
    assert len(kernels) == 1


@pytest.mark.parametrize("past", [0, 1])
def test_a_misaligned_tensor_is_read_by_neighbouring_threads(past):
    """Without wide loads, which would fault; and not 16 bytes apart, which wastes the sectors."""
    a = torch.empty(COUNT + past)[past:]
    one = a.new_empty(())
    of_one = [a], [], [], [0], [0], [1.0, 0.0], [1.0]
    for call in (
        lambda: launchers.multi_tensor_loss(*of_one, False),
        lambda: launchers.multi_tensor_loss_backward(one, None, *of_one, [0]),
    ):
        (launch,) = triton_compile.launches_of(call, "sm_90")
        elements = re.findall(r"sizePerThread = \[(\d+)\]", launch.kernel.asm["ttgir"])
        assert set(elements) == ({"1"} if past else {"4"})
        assert triton_compile.read(launch.kernel).count(r"LDG\..*128") == (0 if past else 2)


def test_a_misaligned_segment_leaves_the_others_their_wide_loads():
    a, narrow = torch.empty(COUNT), torch.empty(COUNT + 1)[1:]
    lists = [a, narrow, a], [], [], [0] * 3, [0] * 3, [1.0, 0.0] * 3, [1.0] * 3
    (launch,) = triton_compile.launches_of(
        lambda: launchers.multi_tensor_loss(*lists, False), "sm_90"
    )
    assert triton_compile.read(launch.kernel).count(r"LDG\..*128") == 2
