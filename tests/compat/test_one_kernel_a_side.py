"""However many outputs a side has, it is one kernel forward and at most one backward."""

from __future__ import annotations

import pytest
from image_codebases import logits
from recording import recorded

from ganloss_fast import backends
from ganloss_fast.compat import (
    basicsr,
    biggan,
    cyclegan,
    lecam,
    mmagic,
    monai,
    parallel_wavegan,
    pix2pixhd,
    spade,
)
from ganloss_fast.compat import studiogan as sg
from ganloss_fast.compat import stylegan2_rosinality as rosinality

pytestmark = pytest.mark.skipif(
    not backends.HAS_NATIVE, reason=f"no native kernels: {backends.NATIVE_MISSING}"
)

X, Y, Z = (logits(2, 1, 4, 4, seed=k) for k in range(3))
NESTED = [[X, Y], [X, Z], [Y, X]]

CALLS = {
    "cyclegan": lambda: cyclegan.GANLoss("lsgan")(X, True),
    "pix2pixhd": lambda: pix2pixhd.GANLoss()(NESTED, False),
    "spade": lambda: spade.GANLoss("hinge")(NESTED, True),
    "spade-generator": lambda: spade.GANLoss("hinge")(NESTED, True, False),
    "basicsr": lambda: basicsr.GANLoss("vanilla", loss_weight=0.1)(X, True),
    "basicsr-multi-scale": lambda: basicsr.MultiScaleGANLoss("lsgan", loss_weight=3)(NESTED, True),
    "mmagic": lambda: mmagic.GANLoss("l1", 0.9, loss_weight=0.5)(X, True),
    "monai": lambda: monai.PatchAdversarialLoss(criterion="bce")([X, Y, Z], True, True),
    "rosinality": lambda: rosinality.d_logistic_loss(X, Y),
    "studiogan": lambda: sg.d_ls(X, Y),
    "biggan": lambda: biggan.loss_hinge_gen(X),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_call_is_one_kernel_each_way(call):
    names = [made.name for made in recorded(lambda: call().sum().backward())]
    assert names.count("multi_tensor_loss") == 1
    assert names.count("multi_tensor_loss_backward") <= 1
    assert len(names) <= 2


PAIRS = {
    "biggan": lambda: biggan.loss_hinge_dis(X, Y),
    "lecam-hinge": lambda: lecam.loss_hinge_dis(X, Y),
    "lecam-ls": lambda: lecam.loss_ls_dis(X, Y),
    "lecam-rahinge": lambda: lecam.loss_rahinge_dis(X, Y),
    "parallel-wavegan": lambda: parallel_wavegan.DiscriminatorAdversarialLoss()([X, Z], [Y, Z]),
}


@pytest.mark.parametrize("call", PAIRS.values(), ids=PAIRS)
def test_a_pair_of_losses_is_one_kernel_a_side_each_way(call):
    names = [made.name for made in recorded(lambda: sum(call()).backward())]
    assert names.count("multi_tensor_loss") == 2
    assert names.count("multi_tensor_loss_backward") == 2
    assert len(names) == 4
