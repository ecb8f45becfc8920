"""Composite losses against the sums that trainers write, values and gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from oracle import EPSILON, assert_close
from oracle import draw as draw_in
from torch import Tensor, nn

import ganloss_fast as gf

pytestmark = pytest.mark.every_implementation

BOTH = (torch.float32, torch.float64)


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return draw_in(*shape, dtype=dtype)


class Step:
    """What a generator step has at hand."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        def leaf(*shape: int) -> Tensor:
            return draw(*shape, dtype=dtype).requires_grad_()

        self.output, self.target = leaf(2, 3, 8, 8), draw(2, 3, 8, 8, dtype=dtype)
        self.logits = leaf(2, 1, 3, 3)
        self.fake_maps = [leaf(2, 4, 5, 5), leaf(2, 6, 3, 3)]
        self.real_maps = [draw(*t.shape, dtype=dtype) for t in self.fake_maps]
        self.inputs = [self.output, self.logits, *self.fake_maps]


def plain_gram(x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    flat = x.reshape(b, c, h * w)
    return torch.bmm(flat, flat.transpose(1, 2)) / (c * h * w)


def plain_terms(s: Step) -> dict[str, Tensor]:
    """As image-to-image and super-resolution trainers add them up."""
    pairs = list(zip(s.fake_maps, s.real_maps))
    return {
        "adversarial": 0.5 * -s.logits.mean(),
        "pixels": 100.0 * F.l1_loss(s.output, s.target),
        "squares": 3.0 * F.mse_loss(s.output, s.target),
        "matching": 10.0 * sum(F.l1_loss(f, r) for f, r in pairs),
        "perceptual": 0.1 * sum(w * F.mse_loss(f, r) for w, (f, r) in zip((0.25, 2.0), pairs)),
        "style": 250.0 * sum(F.l1_loss(plain_gram(f), plain_gram(r)) for f, r in pairs),
        "texture": 20.0 * sum(F.mse_loss(plain_gram(f), plain_gram(r)) for f, r in pairs),
    }


def our_terms(s: Step) -> dict[str, gf.L1]:
    maps = s.fake_maps, s.real_maps
    return {
        "adversarial": gf.Adversarial(s.logits, "hinge", weight=0.5),
        "pixels": gf.L1(s.output, s.target, weight=100.0),
        "squares": gf.MSE(s.output, s.target, 3.0),
        "matching": gf.FeatureMatching(s.real_maps, s.fake_maps, weight=10.0),
        "perceptual": gf.Perceptual(*maps, 0.1, layer_weights=(0.25, 2.0), criterion="mse"),
        "style": gf.Gram(*maps, weight=250.0),
        "texture": gf.Gram(*maps, weight=20.0, criterion="mse"),
    }


@pytest.mark.parametrize("dtype", BOTH, ids=str)
def test_total_parts_and_gradients_are_the_plain_sum(implementation, dtype):
    step = Step(dtype)
    ours, plain = gf.composite_loss(**our_terms(step)), plain_terms(step)
    total = sum(plain.values())
    assert_close(ours.total, total, 16 * EPSILON[dtype])
    assert list(ours.parts) == list(ours.names) == list(plain)
    for name, value in plain.items():
        assert_close(ours.parts[name], value, 64 * EPSILON[dtype])
        assert not ours.parts[name].requires_grad
    mine = torch.autograd.grad(ours.total, step.inputs)
    for a, b in zip(mine, torch.autograd.grad(total, step.inputs)):
        assert_close(a, b, 64 * EPSILON[dtype])


@pytest.mark.parametrize("name", list(our_terms(Step())))
def test_every_term_alone(implementation, name):
    step = Step()
    ours, plain = gf.composite_loss(term=our_terms(step)[name]).total, plain_terms(step)[name]
    assert_close(ours, plain, 1e-12)
    mine = torch.autograd.grad(ours, step.inputs, allow_unused=True)
    for a, b in zip(mine, torch.autograd.grad(plain, step.inputs, allow_unused=True)):
        assert (a is None) == (b is None)
        if a is not None:
            assert_close(a, b, 1e-12)


@pytest.mark.parametrize("name", list(our_terms(Step())))
def test_a_weight_may_be_a_tensor(name):
    step = Step()
    term = our_terms(step)[name]
    weight = torch.tensor(float(term.weight), dtype=torch.float64, requires_grad=True)
    changed = replace(term, weight=weight)
    loss = gf.composite_loss(one=gf.L1(step.output, step.target), other=changed)
    plain = plain_terms(step)[name]
    assert_close(loss.total, F.l1_loss(step.output, step.target) + plain, 1e-12)
    assert_close(loss.parts["other"], plain, 1e-12)
    (gradient,) = torch.autograd.grad(loss.total, weight, retain_graph=True)
    assert_close(gradient, plain / weight, 1e-12)
    torch.autograd.grad(loss.total, step.inputs, allow_unused=True)


def test_relativistic_adversarial_terms():
    step = Step()
    real = draw(2, 1, 3, 3)
    loss = gf.BCE(relativistic="average")
    ours = gf.composite_loss(
        gan=gf.Adversarial(step.logits, loss, 0.005, real=real),
        listed=gf.Adversarial([step.logits] * 2, "lsgan", output_reduction="mean"),
    )
    f, r = step.logits, real
    gan = F.softplus(-(f - r.mean())).mean() + F.softplus(r - f.mean()).mean()
    assert_close(ours.total, 0.005 * gan + (f - 1).square().mean(), 1e-12)


def test_a_loss_of_your_own_is_a_term():
    step = Step()
    own = step.output.square().sum()
    loss = gf.composite_loss(pixels=gf.L1(step.output, step.target), own=0.3 * own)
    plain = F.l1_loss(step.output, step.target) + 0.3 * own
    assert_close(loss.total, plain, 1e-12)
    (mine,) = torch.autograd.grad(loss.total, step.output, retain_graph=True)
    assert_close(mine, *torch.autograd.grad(plain, step.output), 1e-12)


def test_lists_add_up_and_masks_weigh():
    step = Step()
    mask = torch.rand(2, 1, 8, 8)
    loss = gf.composite_loss(
        cycles=gf.L1([step.output, 2 * step.output], [step.target, step.target], 10.0),
        masked=gf.MSE(step.output, step.target, mask=mask),
        hole=gf.L1(step.output, step.target, mask=mask, normalize_by_mask=True),
    )
    x, y, m = step.output, step.target, mask.double()
    assert_close(loss.parts["cycles"], 10 * (F.l1_loss(x, y) + F.l1_loss(2 * x, y)), 1e-12)
    assert_close(loss.parts["masked"], (m * (x - y).square()).mean(), 1e-12)
    hole = (m * (x - y).abs()).sum() / (3 * m.sum())
    assert_close(loss.parts["hole"], hole, 1e-6)  # the mean of a float32 mask


def test_the_target_gets_a_gradient_only_if_asked():
    x, y = draw(2, 3, 4, 4).requires_grad_(), draw(2, 3, 4, 4).requires_grad_()
    for make in (gf.L1, gf.MSE, gf.Perceptual, gf.Gram):
        total = gf.composite_loss(term=make(x, y)).total
        assert torch.autograd.grad(total, y, allow_unused=True) == (None,)
        total = gf.composite_loss(term=make(x, y, detach_target=False)).total
        plain_x, plain_y = (plain_gram(x), plain_gram(y)) if make is gf.Gram else (x, y)
        plain = (F.mse_loss if make is gf.MSE else F.l1_loss)(plain_x, plain_y)
        assert_close(*torch.autograd.grad(total, y), *torch.autograd.grad(plain, y), 1e-12)


def test_one_call_of_the_op_for_all_terms(native):
    from torch.utils._python_dispatch import TorchDispatchMode

    class Calls(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.names = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.names.append(func.name())
            return func(*args, **(kwargs or {}))

    step = Step(torch.float32)
    with Calls() as calls:
        loss = gf.composite_loss(**our_terms(step))
    of_ours = [name for name in calls.names if "ganloss" in name]
    assert of_ours == ["ganloss_fast::multi_tensor_loss"]
    assert not {"aten::_local_scalar_dense", "aten::item"} & set(calls.names)
    assert loss.values.shape == (7,)


# ---- Gram matrices -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", BOTH, ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 4, 7), (2, 3, 2, 2, 2)])
def test_gram_matrix_and_both_derivatives(shape, dtype):
    x = draw(*shape, dtype=dtype).requires_grad_()
    flat = x.flatten(2)
    plain = torch.einsum("bcn,bdn->bcd", flat, flat) / flat[0].numel()
    ours = gf.gram_matrix(x)
    assert_close(ours, plain, 8 * EPSILON[dtype])
    other = draw(*ours.shape, dtype=dtype)  # not symmetric
    (mine,) = torch.autograd.grad((ours * other).sum(), x, create_graph=True)
    (theirs,) = torch.autograd.grad((plain * other).sum(), x, create_graph=True)
    assert_close(mine, theirs, 16 * EPSILON[dtype])
    (mine,) = torch.autograd.grad(mine.square().sum(), x)
    (theirs,) = torch.autograd.grad(theirs.square().sum(), x)
    assert_close(mine, theirs, 16 * EPSILON[dtype])


@pytest.mark.parametrize(("normalization", "by"), [("hw", 20), ("none", 1), ("chw", 60)])
def test_normalizations(normalization, by):
    x, y = draw(2, 3, 4, 5), draw(2, 3, 4, 5)
    moments = [t.flatten(2) @ t.flatten(2).mT / by for t in (x, y)]
    assert_close(gf.gram_matrix(x, normalization), moments[0], 1e-12)
    for criterion, plain in (("l1", F.l1_loss), ("mse", F.mse_loss)):
        term = gf.Gram(x, y, normalization=normalization, criterion=criterion)
        assert_close(gf.composite_loss(style=term).total, plain(*moments), 1e-12)


def test_float16_maps_do_not_overflow():
    x = torch.full((1, 2, 64, 64), 8.0, dtype=torch.float16)  # the sum over pixels is 262144
    torch.testing.assert_close(gf.gram_matrix(x), torch.full((1, 2, 2), 32.0).half())
    loss = gf.composite_loss(style=gf.Gram(x, torch.zeros_like(x)))
    torch.testing.assert_close(loss.total, torch.tensor(32.0))


def test_autocast_keeps_the_dtype_of_the_maps():
    x = draw(2, 3, 4, 4, dtype=torch.float32)
    plain = gf.gram_matrix(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(gf.gram_matrix(x), plain)
        assert gf.gram_matrix(x).dtype == torch.float32


# ---- features of a network ---------------------------------------------------------------------


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 5, 3),
        nn.ReLU(inplace=True),
        nn.Conv2d(5, 6, 3),
    ).double()


def test_named_layers_of_a_sequential():
    model = network().eval()
    x = draw(2, 3, 9, 9)
    found = gf.SequentialFeatures(model, {"norm1": 1, "relu2": 4})(x)
    assert list(found) == ["norm1", "relu2"]
    assert torch.equal(found["norm1"], model[1](model[0](x)))  # not what ReLU made of it
    assert torch.equal(found["relu2"], model[:5](x))


def test_perceptual_and_style_losses_of_a_network():
    """With mean, deviation and range, as super-resolution trainers normalise for VGG."""
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    layers = {"relu1": 2, "conv3": 5}
    weights = {"relu1": 0.1, "conv3": 1.0}
    extract = gf.PerceptualFeatures(
        gf.SequentialFeatures(network(), layers), mean=mean, std=std, from_signed=True
    ).double()
    output, target = draw(2, 3, 9, 9).requires_grad_(), draw(2, 3, 9, 9).requires_grad_()
    features = extract(output, target)
    loss = gf.composite_loss(
        perceptual=gf.Perceptual(*features, layer_weights=weights),
        style=gf.Gram(*features, 5.0, layer_weights=weights),
    )
    plain_network = network().eval()

    def plain_features(x):
        x = (x + 1) / 2
        x = (x - x.new_tensor(mean).view(1, 3, 1, 1)) / x.new_tensor(std).view(1, 3, 1, 1)
        return plain_network[:3](x), plain_network(x)

    plain = 0.0
    for w, a, b in zip((0.1, 1.0), plain_features(output), plain_features(target.detach())):
        plain = plain + w * F.l1_loss(a, b) + 5 * w * F.l1_loss(plain_gram(a), plain_gram(b))
    assert_close(loss.total, plain, 1e-6)  # the constants are float32
    (mine,) = torch.autograd.grad(loss.total, output)
    assert_close(mine, *torch.autograd.grad(plain, output), 1e-5)
    assert all(not t.requires_grad for t in features.target.values())


def test_videos_are_normalised_by_their_channels_too():
    extract = gf.PerceptualFeatures(lambda x: x, mean=(0.1, 0.2), std=(0.5, 0.25))
    x = torch.rand(1, 2, 2, 3, 3)
    plain = (x - torch.tensor([0.1, 0.2]).view(2, 1, 1, 1)) / torch.tensor([0.5, 0.25]).view(
        2, 1, 1, 1
    )
    torch.testing.assert_close(extract(x, x).output[0], plain)


def test_the_network_is_frozen_and_stays_in_eval_mode():
    extract = gf.PerceptualFeatures(network())
    extract.train()
    assert not any(module.training for module in extract.modules())
    assert not any(parameter.requires_grad for parameter in extract.parameters())
    assert gf.PerceptualFeatures(lambda x: x)(torch.ones(1), torch.zeros(1)).output[0] == 1


# ---- steps, half precision, the compiler -------------------------------------------------------


def test_fifty_steps_are_those_of_the_plain_form():
    def trained(loss_of) -> Tensor:
        torch.manual_seed(3)
        model = nn.Conv2d(3, 3, 3, padding=1)
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        critic = nn.Conv2d(3, 1, 3)
        for _ in range(50):
            x, y = torch.randn(2, 2, 3, 6, 6)
            optimizer.zero_grad()
            loss_of(model(x), y, critic).backward()
            optimizer.step()
        return nn.utils.parameters_to_vector(model.parameters())

    def ours(output, y, critic):
        return gf.composite_loss(
            gan=gf.Adversarial(critic(output), "bce"),
            l1=gf.L1(output, y, 100.0),
            style=gf.Gram(output, y, 10.0),
        ).total

    def plain(output, y, critic):
        gan = F.softplus(-critic(output)).mean()
        style = F.l1_loss(plain_gram(output), plain_gram(y))
        return gan + 100 * F.l1_loss(output, y) + 10 * style

    torch.testing.assert_close(trained(ours), trained(plain), rtol=1e-3, atol=1e-5)


def test_half_precision_outputs_and_full_precision_targets():
    """A generator under autocast, and data that never was."""
    output = torch.randn(2, 3, 8, 8).bfloat16().requires_grad_()
    target = torch.randn(2, 3, 8, 8)
    loss = gf.composite_loss(pixels=gf.L1(output, target, 100.0))
    assert_close(loss.total, 100 * F.l1_loss(output.double(), target.double()), 1e-6)
    loss.total.backward()
    assert output.grad.dtype == torch.bfloat16
    style = gf.composite_loss(style=gf.Gram(output, target)).total
    wide = plain_gram(output.detach().double()), plain_gram(target.double())
    assert_close(style, F.l1_loss(*wide), 1e-6)


def test_one_graph_under_the_compiler(fresh_compiler):
    def total(output, target, logits, *maps):
        fake_maps, real_maps = maps[:2], maps[2:]
        return gf.composite_loss(
            gan=gf.Adversarial(logits, "hinge"),
            l1=gf.L1(output, target, 100.0),
            matching=gf.FeatureMatching(real_maps, fake_maps),
            style=gf.Gram(list(fake_maps), list(real_maps)),
        ).total

    step = Step(torch.float32)
    inputs = (step.output, step.target, step.logits, *step.fake_maps, *step.real_maps)
    compiled = torch.compile(total, fullgraph=True, backend="aot_eager")
    mine, theirs = compiled(*inputs), total(*inputs)
    torch.testing.assert_close(mine, theirs)
    for a, b in zip(
        torch.autograd.grad(mine, step.inputs), torch.autograd.grad(theirs, step.inputs)
    ):
        torch.testing.assert_close(a, b)


# ---- wrong calls -------------------------------------------------------------------------------

X, Y = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 5)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        (lambda: {}, "at least one"),
        (lambda: {"l1": gf.L1(X, Y)}, r"^l1: target: expected the shape of output"),
        (lambda: {"l1": gf.L1([X, X], [X])}, "as many tensors"),
        (lambda: {"l1": gf.L1(X, [])}, "target"),
        (lambda: {"l1": gf.L1(X.long(), X)}, "output"),
        (lambda: {"l1": gf.L1(X, X, float("nan"))}, "weight"),
        (lambda: {"l1": gf.L1(X, X, normalize_by_mask=True)}, "no mask"),
        (lambda: {"l1": gf.L1}, "the class"),
        (lambda: {"l1": 3.0}, "l1: expected a term"),
        (lambda: {"l1": X}, "l1: expected a term"),
        (lambda: {"gan": gf.Adversarial(X, "ragan")}, "relativistic"),
        (lambda: {"vgg": gf.Perceptual({"a": X}, {"b": X})}, "target_features: there is no"),
        (lambda: {"vgg": gf.Perceptual({"a": X}, {"a": X}, layer_weights={"c": 1.0})}, "output"),
        (lambda: {"vgg": gf.Perceptual([X], [X], layer_weights=[1.0, 2.0])}, "layer_weights"),
        (lambda: {"vgg": gf.Perceptual([X], [X], layer_weights={"a": 1.0})}, "layer_weights"),
        (lambda: {"vgg": gf.Perceptual({"a": X}, {"a": X}, layer_weights=[1.0])}, "names"),
        (lambda: {"vgg": gf.Perceptual([X], [X], criterion="l2")}, "criterion"),
        (lambda: {"style": gf.Gram([X[0, 0]], [X[0, 0]])}, r"\[B, C, ...\]"),
        (lambda: {"style": gf.Gram([X], [X], criterion="fro")}, "criterion"),
        (lambda: {"style": gf.Gram([X], [X], normalization="wh")}, "normalization"),
        (lambda: {"fm": gf.FeatureMatching([X], [Y])}, "must be alike"),
    ],
)
def test_wrong_terms_are_named(terms, message):
    with pytest.raises((TypeError, ValueError), match=message):
        gf.composite_loss(**terms())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gf.SequentialFeatures(nn.Linear(1, 1), {"a": 0}), "Sequential"),
        (lambda: gf.SequentialFeatures(network(), {}), "layers"),
        (lambda: gf.SequentialFeatures(network(), {"a": 6}), "below 6"),
        (lambda: gf.PerceptualFeatures(network(), mean=(0.5,)), "both"),
        (lambda: gf.PerceptualFeatures(network(), mean=(0.5,), std=(0.0,)), "positive"),
        (lambda: gf.PerceptualFeatures(network(), mean=(0.5,), std=(1.0, 1.0)), "std"),
        (lambda: gf.PerceptualFeatures(network(), mean=0.5, std=0.5), "mean"),
        (
            lambda: gf.PerceptualFeatures(lambda x: x, mean=(0.5,) * 4, std=(1.0,) * 4)(X, X),
            "images: expected 4 channels",
        ),
        (lambda: gf.PerceptualFeatures(3), "network"),
        (lambda: gf.PerceptualFeatures(lambda x: None)(X, X), "feature maps"),
        (lambda: gf.gram_matrix(X[0, 0]), "features"),
    ],
)
def test_wrong_networks_are_named(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()
