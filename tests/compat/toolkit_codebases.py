"""What the tests of toolkits share: values and gradients of a drop-in and of its formula."""

from __future__ import annotations

import torch
from torch import Tensor


def assert_same(ours: Tensor, plain: Tensor, inputs: list[Tensor]) -> None:
    assert ours.shape == plain.shape
    torch.testing.assert_close(ours, plain)
    along = torch.randn_like(plain)
    options = {"allow_unused": True, "retain_graph": True, "materialize_grads": True}
    mine = torch.autograd.grad(ours, inputs, along, **options)
    for a, b in zip(mine, torch.autograd.grad(plain, inputs, along, **options)):
        torch.testing.assert_close(a, b)
