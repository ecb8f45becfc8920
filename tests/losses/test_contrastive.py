"""Dual contrastive, multi-class hinge and KL-WGAN, against the tables that codebases build."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import ganloss_fast as gf

pytestmark = pytest.mark.every_implementation
BOTH = (torch.float32, torch.float64)


def leaf(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_()


def assert_same(ours: Tensor, plain: Tensor, *inputs: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(ours, plain, rtol=tolerance, atol=tolerance)
    mine = torch.autograd.grad(ours, inputs, retain_graph=True)
    for a, b in zip(mine, torch.autograd.grad(plain, inputs, retain_graph=True)):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def table(one: Tensor, others: Tensor) -> Tensor:
    """Cross-entropy of every row [x_i, y_1, ..., y_M] with class 0."""
    rows = torch.cat([one.reshape(-1, 1), others.reshape(1, -1).expand(one.numel(), -1)], 1)
    return F.cross_entropy(rows, torch.zeros(one.numel(), dtype=torch.int64))


@pytest.mark.parametrize("dtype", BOTH, ids=str)
@pytest.mark.parametrize("shapes", [((5,), (5,)), ((4, 1), (7, 1)), ((2, 1, 3, 3), (1, 1, 2, 2))])
def test_dual_contrastive_is_two_cross_entropies(implementation, shapes, dtype):
    real, fake = (leaf(*shape, dtype=dtype) for shape in shapes)
    plain = 0.5 * (table(real, fake) + table(-fake, -real))
    ours = gf.dual_contrastive_loss(real, fake, weight=0.5)
    assert_same(ours, plain, real, fake, tolerance=1e-6 if dtype == torch.float32 else 1e-12)


def test_dual_contrastive_with_huge_logits_stays_finite():
    real, fake = 1e4 * leaf(5, dtype=torch.float32), 1e4 * leaf(5, dtype=torch.float32)
    assert_same(gf.dual_contrastive_loss(real, fake), table(real, fake) + table(-fake, -real), real)


def test_dual_contrastive_second_derivatives():
    real, fake = leaf(3), leaf(4)
    assert torch.autograd.gradgradcheck(gf.dual_contrastive_loss, (real, fake))


@pytest.mark.parametrize("dtype", BOTH, ids=str)
def test_multi_hinge_is_crammer_and_singers(implementation, dtype):
    logits, labels = leaf(6, 4, dtype=dtype), torch.tensor([0, 1, 2, 3, 0, 2])
    labels[:2] = logits[:2].argmax(1)  # where the right class has the largest logit
    rows = []
    for row, label in zip(logits, labels.tolist()):
        wrong = torch.stack([x for j, x in enumerate(row) if j != label]).max()
        rows.append(F.relu(0.5 + wrong - row[label]))
    ours = gf.multi_hinge_loss(logits, labels, margin=0.5, weight=3.0)
    assert_same(ours, 3 * torch.stack(rows).mean(), logits)


@pytest.mark.parametrize("dtype", BOTH, ids=str)
def test_kl_weighted_logits_are_those_of_f_wgan(dtype):
    real, fake = leaf(6, 1, dtype=dtype), leaf(6, 1, dtype=dtype)
    scaled = fake / 2.0
    ratio = (scaled - scaled.reshape(-1).logsumexp(0) + torch.log(torch.tensor(6.0))).exp()
    ours = gf.discriminator_loss(real, gf.kl_weighted_logits(fake, 2.0), "hinge")
    plain = F.relu(1 - real).mean() + F.relu(1 + fake * ratio).mean()
    assert_same(ours, plain, real, fake)
    ours = gf.generator_loss(gf.kl_weighted_logits(fake, 2.0), "hinge")
    assert_same(ours, -(fake * ratio).mean(), fake)


def test_kl_weights_do_not_overflow_in_half_precision():
    fake = torch.full((4,), 40.0, dtype=torch.float16)
    torch.testing.assert_close(gf.kl_weighted_logits(fake), torch.full((4,), 40.0))


@pytest.mark.parametrize("name", ["dual", "hinge", "kl"])
def test_one_graph_under_the_compiler(fresh_compiler, name):
    call = {
        "dual": lambda x, y: gf.dual_contrastive_loss(x, y),
        "hinge": lambda x, y: gf.multi_hinge_loss(x, torch.zeros(4, dtype=torch.int64)),
        "kl": lambda x, y: gf.discriminator_loss(x, gf.kl_weighted_logits(y), "hinge"),
    }[name]
    x, y = leaf(4, 3, dtype=torch.float32), leaf(4, 3, dtype=torch.float32)
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, y), call(x, y))


X, LABELS = torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gf.dual_contrastive_loss(X, X[:0]), "fake"),
        (lambda: gf.dual_contrastive_loss([X], X), "real"),
        (lambda: gf.dual_contrastive_loss(X, X, weight="1"), "weight"),
        (lambda: gf.multi_hinge_loss(X, LABELS[:2]), "labels"),
        (lambda: gf.multi_hinge_loss(X, LABELS.float()), "labels"),
        (lambda: gf.multi_hinge_loss(X[:, :1], LABELS), "two classes"),
        (lambda: gf.kl_weighted_logits(X, 0.0), "temperature"),
        (lambda: gf.kl_weighted_logits(LABELS), "fake"),
    ],
)
def test_wrong_calls_are_named(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
