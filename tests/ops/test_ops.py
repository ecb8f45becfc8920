"""The ops as torch sees them: registration, and refusal of wrong direct calls.

The wrong calls are made to the native ops and to the Triton launchers alike.
"""

from __future__ import annotations

import pytest
import torch
from oracle import draw
from recording import Call, one_call_of_each_op

pytestmark = pytest.mark.every_implementation

OPS = (
    "multi_tensor_loss",
    "multi_tensor_loss_backward",
    "multi_tensor_loss_double_backward",
    "interpolate",
    "perturb",
    "norm_penalty",
    "norm_penalty_backward",
    "norm_penalty_double_backward",
)
DIFFERENTIABLE = {
    "multi_tensor_loss": ("a", "b"),
    "multi_tensor_loss_backward": ("grad_total", "grad_values", "a", "b"),
    "interpolate": ("real", "fake", "alpha"),
    "perturb": ("inputs",),
    "norm_penalty": ("gradient",),
    "norm_penalty_backward": ("grad_penalty", "gradient"),
}


@pytest.fixture
def calls(native) -> dict[str, Call]:
    return one_call_of_each_op()


def test_the_recorded_calls_are_of_all_ops(calls):
    registered = {
        name.removeprefix("ganloss_fast::").partition(".")[0]
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("ganloss_fast::")
    }
    assert set(calls) == set(OPS) == registered


def requiring_grad(call: Call) -> dict[str, object]:
    """The arguments of a call as fresh leaves; those it can differentiate require grad."""

    def leaf(value, name):
        if isinstance(value, torch.Tensor):
            return value.clone().requires_grad_(name in DIFFERENTIABLE.get(call.name, ()))
        if isinstance(value, list):
            return [leaf(item, name) for item in value]
        return value

    return {name: leaf(value, name) for name, value in call.arguments.items()}


# opcheck traces with meta and functional tensors, for which emulated kernels are not registered.
@pytest.mark.cpu_only
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # opcheck's own
@pytest.mark.parametrize("name", OPS)
def test_opcheck(calls, name):
    """Schema, autograd registration, fake kernel, and AOT dispatch with dynamic shapes."""
    pytest.importorskip("expecttest", reason="torch.library.opcheck needs expecttest")
    torch.library.opcheck(calls[name].op, (), requiring_grad(calls[name]))


@pytest.mark.cpu_only
@pytest.mark.parametrize("name", OPS)
def test_opcheck_without_gradients(calls, name):
    pytest.importorskip("expecttest", reason="torch.library.opcheck needs expecttest")
    torch.library.opcheck(calls[name].op, (), calls[name].arguments)


@pytest.mark.parametrize("name", OPS)
def test_a_fake_kernel_gives_the_strides_of_the_real_one(calls, name):
    """For channels_last inputs too."""
    images = dict(calls[name].arguments.items())

    def with_strides(value):
        if isinstance(value, torch.Tensor) and value.dim() == 2:
            return value.t().contiguous().t()
        return [with_strides(item) for item in value] if isinstance(value, list) else value

    arguments = {key: with_strides(value) for key, value in images.items()}
    pytest.importorskip("expecttest", reason="torch.library.opcheck needs expecttest")
    torch.library.opcheck(calls[name].op, (), arguments, test_utils="test_faketensor")


ELSEWHERE = torch.zeros((), device="meta")  # a device that every machine has

# What is wrong with a call, and what it says.
WRONG_CALLS = {
    "too few terms": ("multi_tensor_loss", {"terms": [0, 0]}, "terms"),
    "too few scales": ("multi_tensor_loss", {"scale": [1.0]}, "scale"),
    "too few parameters": ("multi_tensor_loss", {"parameters": [1.0] * 5}, "parameters"),
    "too few operands": ("multi_tensor_loss", {"operands": [0]}, "operands"),
    "no b where one is due": ("multi_tensor_loss", {"b": []}, "b"),
    "no weight where one is due": ("multi_tensor_loss", {"weights": []}, "weights"),
    "a term that does not exist": ("multi_tensor_loss", {"terms": [0, 99, 0]}, "terms"),
    "a negative term": ("multi_tensor_loss", {"terms": [0, -1, 0]}, "terms"),
    "integer logits": (
        "multi_tensor_loss",
        {"a": [torch.zeros(3, 4), torch.zeros(3, 4), torch.arange(5)]},
        "a",
    ),
    "b of another shape": (
        "multi_tensor_loss",
        {"b": [torch.zeros(4, 3), torch.zeros(())]},
        "b",
    ),
    "b of another dtype": (
        "multi_tensor_loss",
        {"b": [torch.zeros(3, 4, dtype=torch.float64), torch.zeros(())]},
        "b",
    ),
    "an integer 0-d b": (
        "multi_tensor_loss",
        {"b": [torch.zeros(3, 4), torch.zeros((), dtype=torch.int64)]},
        "b",
    ),
    "a 0-d b on another device": (
        "multi_tensor_loss",
        {"b": [torch.zeros(3, 4), ELSEWHERE]},
        "b",
    ),
    "segments on two devices": (
        "multi_tensor_loss",
        {"a": [torch.zeros(3, 4), torch.zeros(3, 4), torch.zeros(5, device="meta")]},
        "a",
    ),
    "weight of another shape": ("multi_tensor_loss", {"weights": [torch.zeros(3)]}, "weights"),
    "integer weight": (
        "multi_tensor_loss",
        {"weights": [torch.zeros(3, 4, dtype=torch.int64)]},
        "weights",
    ),
    "wanted out of range": ("multi_tensor_loss_backward", {"wanted": [99]}, "wanted"),
    "wanted below zero": ("multi_tensor_loss_backward", {"wanted": [-1]}, "wanted"),
    "grad_total of another shape": (
        "multi_tensor_loss_backward",
        {"grad_total": torch.zeros(0)},
        "grad_total",
    ),
    "grad_values of another length": (
        "multi_tensor_loss_backward",
        {"grad_values": torch.zeros(2)},
        "grad_values",
    ),
    "an integer grad_total": (
        "multi_tensor_loss_backward",
        {"grad_total": torch.zeros((), dtype=torch.int64)},
        "grad_total",
    ),
    "integer grad_values": (
        "multi_tensor_loss_backward",
        {"grad_values": torch.zeros(3, dtype=torch.int64)},
        "grad_values",
    ),
    "grad_total on another device": (
        "multi_tensor_loss_backward",
        {"grad_total": ELSEWHERE},
        "grad_total",
    ),
    "grad_values of another length in double backward": (
        "multi_tensor_loss_double_backward",
        {"grad_values": torch.zeros(2)},
        "grad_values",
    ),
    "too few directions": ("multi_tensor_loss_double_backward", {"directions": []}, "directions"),
    "directions of another shape": (
        "multi_tensor_loss_double_backward",
        {"directions": [torch.zeros(1), torch.zeros(1), torch.zeros(1), torch.zeros(())]},
        "directions",
    ),
    "an empty direction for a 0-d b": (
        "multi_tensor_loss_double_backward",
        {"directions": [torch.zeros(3, 4)] * 3 + [torch.zeros(0)]},
        "directions",
    ),
    "an integer direction for a 0-d b": (
        "multi_tensor_loss_double_backward",
        {"directions": [torch.zeros(3, 4)] * 3 + [torch.zeros((), dtype=torch.int64)]},
        "directions",
    ),
    "second wanted out of range": (
        "multi_tensor_loss_double_backward",
        {"wanted_second": [99]},
        "wanted_second",
    ),
    "fake of another shape": ("interpolate", {"fake": torch.zeros(4, 3)}, "fake"),
    "fake of another dtype": ("interpolate", {"fake": torch.zeros(3, 4).double()}, "fake"),
    "integer samples": (
        "interpolate",
        {"real": torch.zeros(3, 4).int(), "fake": torch.zeros(3, 4).int()},
        "real",
    ),
    "alpha of another shape": ("interpolate", {"alpha": torch.zeros(2)}, "alpha"),
    "integer alpha": ("interpolate", {"alpha": torch.zeros(3).long()}, "alpha"),
    "alpha on another device": ("interpolate", {"alpha": ELSEWHERE}, "alpha"),
    "integer inputs": ("perturb", {"inputs": torch.zeros(3, 4).int()}, "inputs"),
    "a floating-point seed": ("perturb", {"seed": torch.zeros(())}, "seed"),
    "two seeds": ("perturb", {"seed": torch.zeros(2, dtype=torch.int64)}, "seed"),
    "a mode that does not exist": ("norm_penalty", {"mode": 99}, "mode"),
    "a negative mode": ("norm_penalty_backward", {"mode": -1}, "mode"),
    "a gradient without a batch": (
        "norm_penalty",
        {"gradient": torch.zeros(())},
        "gradient",
    ),
    "an integer gradient": (
        "norm_penalty",
        {"gradient": torch.zeros(3, 4).long()},
        "gradient",
    ),
    "norms of another length": (
        "norm_penalty_backward",
        {"norms": torch.zeros(2)},
        "norms",
    ),
    "an empty grad_penalty": (
        "norm_penalty_backward",
        {"grad_penalty": torch.zeros(0)},
        "grad_penalty",
    ),
    "an integer grad_penalty": (
        "norm_penalty_backward",
        {"grad_penalty": torch.zeros((), dtype=torch.int64)},
        "grad_penalty",
    ),
    "integer norms": (
        "norm_penalty_backward",
        {"norms": torch.zeros(3, dtype=torch.int64)},
        "norms",
    ),
    "norms on another device": (
        "norm_penalty_double_backward",
        {"norms": torch.zeros(3, device="meta")},
        "norms",
    ),
    "no norms in double backward": (
        "norm_penalty_double_backward",
        {"norms": torch.zeros(0)},
        "norms",
    ),
    "direction of another shape": (
        "norm_penalty_double_backward",
        {"direction": draw(4, 3)},
        "direction",
    ),
}


def on_native(call: Call, arguments: dict[str, object]) -> object:
    """The CPU kernel, whatever the devices of the arguments: a dispatcher would pick another."""
    return call.op.redispatch(
        torch._C.DispatchKeySet(torch._C.DispatchKey.CPU), *arguments.values()
    )


def on_triton(call: Call, arguments: dict[str, object]) -> object:
    """The Triton launcher. It refuses before it launches, so no GPU and no interpreter is used."""
    pytest.importorskip("triton")
    from ganloss_fast.ops.triton import launchers

    if not hasattr(launchers, call.name):
        pytest.skip(f"there are no Triton kernels of {call.name}")
    return getattr(launchers, call.name)(*arguments.values())


@pytest.mark.parametrize("kernels", [on_native, on_triton])
@pytest.mark.parametrize("wrong", WRONG_CALLS)
def test_a_wrong_direct_call_names_the_argument(calls, wrong, kernels):
    name, changed, argument = WRONG_CALLS[wrong]
    call = calls[name]
    assert set(changed) <= set(call.arguments)
    with pytest.raises((ValueError, TypeError), match=f"^{argument}: expected"):
        kernels(call, {**call.arguments, **changed})


@pytest.mark.parametrize("kernels", [on_native, on_triton])
def test_a_call_without_segments_is_refused(calls, kernels):
    call = calls["multi_tensor_loss"]
    empty = {name: [] if isinstance(x, list) else x for name, x in call.arguments.items()}
    with pytest.raises(ValueError, match=r"^a: expected at least one segment, got none"):
        kernels(call, empty)
