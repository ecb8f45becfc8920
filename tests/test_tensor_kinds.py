"""Tensors of other kinds than usual: of inference mode, with a dispatch of their own, complex."""

from __future__ import annotations

import os

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import return_and_correct_aliasing

import ganloss_fast as gf
from ganloss_fast import backends

PAIRED, AVERAGE = gf.BCE(relativistic="paired"), gf.BCE(relativistic="average")


def inference(*shape: int) -> Tensor:
    with torch.inference_mode():
        return torch.rand(*shape)


TARGETS = {
    "feature maps": (
        lambda f, t: gf.feature_matching_loss([t], [f]),
        lambda f, t: F.l1_loss(f, t),
    ),
    "squared feature maps": (
        lambda f, t: gf.feature_matching_loss([t], [f], criterion="mse"),
        lambda f, t: F.mse_loss(f, t.clone()),
    ),
    "paired": (
        lambda f, t: gf.generator_loss(f, PAIRED, real=t),
        lambda f, t: F.softplus(t - f).mean(),
    ),
    "average": (
        lambda f, t: gf.generator_loss(f, AVERAGE, real=t),
        lambda f, t: F.softplus(t.mean() - f).mean() + F.softplus(t - f.mean()).mean(),
    ),
    "the other side": (
        lambda f, t: gf.discriminator_loss(t, f, "least_squares"),
        lambda f, t: (t - 1).square().mean() + f.square().mean(),
    ),
    "label map": (
        lambda f, t: gf.generator_loss(f, gf.BCE(generator_label=t)),
        lambda f, t: F.binary_cross_entropy_with_logits(f, t.clone()),
    ),
    "least-squares label map": (
        lambda f, t: gf.generator_loss(f, gf.LeastSquares(generator_label=t)),
        lambda f, t: (f - t.clone()).square().mean(),
    ),
    "mask": (
        lambda f, t: gf.generator_loss(f, "bce", mask=t),
        lambda f, t: (t.clone() * F.softplus(-f)).mean(),
    ),
    "weight": (
        lambda f, t: gf.generator_loss(f, "bce", weight=t.mean()),
        lambda f, t: t.clone().mean() * F.softplus(-f).mean(),
    ),
    "penalty's mask": (
        lambda f, t: gf.r1_penalty(lambda x: (x**2).sum(1), f, mask=t),
        lambda f, t: 5 * (2 * f * t.clone()).square().sum(1).mean(),
    ),
    "alpha": (
        lambda f, t: gf.interpolate(f, f.detach() + 1, t[:, 0]).square().mean(),
        lambda f, t: (t[:, :1].clone() * f + (1 - t[:, :1]) * (f.detach() + 1)).square().mean(),
    ),
}


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize(("ours", "plain"), TARGETS.values(), ids=TARGETS)
def test_what_was_made_under_inference_mode_is_a_target(ours, plain, backend):
    target, start = inference(4, 3), torch.randn(4, 3)
    gradients = []
    for loss in (ours, plain):
        f = start.clone().requires_grad_()
        with gf.use_backend(backend):
            value = loss(f, target)
            value.backward()
        gradients.append((value.detach(), f.grad))
    torch.testing.assert_close(gradients[0], gradients[1])
    assert target.is_inference()


def test_errors_of_ordinary_tensors_stay_as_they_are():
    x, weight = torch.randn(4, requires_grad=True), torch.rand(4, requires_grad=True)
    segment = gf.ops.terms.Segment(x, gf.ops.terms.LINEAR, weight=weight)
    with pytest.raises(NotImplementedError, match="weights: no gradient"):
        gf.ops.multi_tensor_loss([segment])


class Wrapped(torch.Tensor):
    """A tensor that carries another and does everything by unwrapping it."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, dtype=inner.dtype, device=inner.device
        )

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func.namespace != "aten":
            raise NotImplementedError(f"{func} is not known here")
        unwrap = torch.utils._pytree.tree_map_only
        own = unwrap(Wrapped, lambda t: t.inner, (args, kwargs or {}))
        result = unwrap(torch.Tensor, Wrapped, func(*own[0], **own[1]))
        return return_and_correct_aliasing(func, args, kwargs or {}, result)


def test_a_tensor_with_its_own_dispatch_is_served_in_plain_pytorch():
    r, f = torch.randn(4, 1), torch.randn(4, 1)
    loss = gf.discriminator_loss(Wrapped(r), Wrapped(f), "hinge")
    assert isinstance(loss, Wrapped)
    torch.testing.assert_close(loss.inner, gf.discriminator_loss(r, f, "hinge"))
    mixed = gf.interpolate(Wrapped(r), Wrapped(f), 0.5)
    torch.testing.assert_close(mixed.inner, (r + f) / 2)


@pytest.mark.skipif(not backends.HAS_NATIVE, reason="no native kernels to refuse")
def test_an_explicit_backend_says_why_it_cannot_serve_it():
    with gf.use_backend("native"), pytest.raises(RuntimeError, match="dispatch of its own"):
        gf.generator_loss(Wrapped(torch.randn(4)), "hinge")


class Tagged(torch.Tensor):
    """Data beside a tensor, as image libraries have it: only __torch_function__."""


@pytest.mark.skipif(not backends.HAS_NATIVE, reason="no native kernels")
def test_other_subclasses_stay_native():
    x = torch.randn(4).as_subclass(Tagged)
    with gf.use_backend("native"):
        torch.testing.assert_close(
            gf.generator_loss(x, "hinge").as_subclass(torch.Tensor),
            -x.mean().as_subclass(torch.Tensor),
        )
        gf.generator_loss(torch.nn.Parameter(torch.randn(4)), "hinge").backward()


def test_distributed_tensors(tmp_path):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        plain = [torch.randn(6, 2) for _ in range(2)]
        r, f = (distribute_tensor(t, mesh, [Shard(0)]).requires_grad_() for t in plain)
        for loss in ("hinge", "bce", gf.LeastSquares(relativistic="average")):
            ours = gf.discriminator_loss(r, f, loss)
            torch.testing.assert_close(ours.full_tensor(), gf.discriminator_loss(*plain, loss))
            (gradient,) = torch.autograd.grad(ours, f)
            leaf = plain[1].clone().requires_grad_()
            gf.discriminator_loss(plain[0], leaf, loss).backward()
            torch.testing.assert_close(gradient.full_tensor(), leaf.grad)
        maps = gf.feature_matching_loss([r.detach()], [f])
        torch.testing.assert_close(maps.full_tensor(), F.l1_loss(plain[1], plain[0]))
    finally:
        torch.distributed.destroy_process_group()


def test_complex_maps_are_told_how_to_keep_both_parts():
    maps = [torch.randn(3, dtype=torch.complex64)]
    with pytest.raises(TypeError, match="view_as_real") as error:
        gf.feature_matching_loss(maps, maps)
    assert ".float()" not in str(error.value)
    parts = [torch.view_as_real(m) for m in maps]
    assert gf.feature_matching_loss(parts, parts) == 0
