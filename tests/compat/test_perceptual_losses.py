"""Perceptual and style losses of image codebases beside their formulas in plain PyTorch."""

from __future__ import annotations

import inspect
import itertools

import pytest
import torch
import torch.nn.functional as F
from drop_in_cases import DTYPES, assert_same, assert_training_agrees
from torch import nn

import ganloss_fast as gf
from ganloss_fast.compat import basicsr, mmagic, pix2pixhd, spade

WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)


class Maps(nn.Module):
    """Five feature maps, in a list."""

    def __init__(self):
        super().__init__()
        widths = (3, 4, 4, 5, 5, 6)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, 1, 1) for a, b in itertools.pairwise(widths))

    def forward(self, x):
        found = []
        for layer in self.layers:
            x = layer(x).tanh()
            found.append(x)
        return found


class NamedMaps(Maps):
    def forward(self, x):
        return {f"conv{k}": found for k, found in enumerate(super().forward(x))}


def images(dtype):
    generator = torch.Generator().manual_seed(2)
    x, y = torch.rand(2, 2, 3, 6, 5, generator=generator, dtype=torch.float64).to(dtype)
    return x.requires_grad_(), y.requires_grad_()


def network(cls, dtype):
    torch.manual_seed(0)
    return cls().to(dtype).requires_grad_(False)


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("module", [pix2pixhd, spade])
def test_maps_count_more_the_deeper_they_are(module, dtype, backend):
    vgg = network(Maps, dtype)

    def plain(x, y):
        pairs = zip(WEIGHTS, vgg(x), vgg(y))
        return sum(w * F.l1_loss(a, b.detach()) for w, a, b in pairs)

    with gf.use_backend(backend):
        assert_same(module.VGGLoss([0], network=vgg), plain, *images(dtype))


def normalised(x, from_signed):
    """By the statistics of torchvision, in float32; float64 tests leave them out."""
    if x.dtype == torch.float64:
        return (x + 1) / 2 if from_signed else x
    mean, std = (
        torch.tensor(values, dtype=torch.float32).to(x.dtype).view(1, 3, 1, 1)
        for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    return ((x + 1) / 2 if from_signed else x).sub(mean).div(std)


def gram(x):
    flat = x.flatten(2)
    return flat.bmm(flat.transpose(1, 2)) / flat[0].numel()


DISTANCES = {
    "l1": F.l1_loss,
    "l2": F.mse_loss,
    "mse": F.mse_loss,
    "fro": lambda a, b: torch.norm(a - b, p="fro"),
}
LAYERS = {"conv1": 0.5, "conv4": 2.0}
CASES = [
    (basicsr, {"criterion": "l1"}, 1.0, 0.0, False),
    (basicsr, {"criterion": "l2", "range_norm": True}, 0.3, 20.0, True),
    (basicsr, {"criterion": "fro"}, 0.7, 3.0, False),
    (mmagic, {"criterion": "l1", "norm_img": False}, 1.0, 1.0, False),
    (mmagic, {"criterion": "MSE", "layer_weights_style": {"conv2": 3.0}}, 0.0, 5.0, True),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0].__name__[-6:]} {case[1]}")
def test_layers_and_their_gram_matrices(case, dtype):
    module, options, perceptual_weight, style_weight, from_signed = case
    vgg = network(NamedMaps, dtype)
    distance = DISTANCES[options["criterion"].lower()]
    style_layers = options.get("layer_weights_style", LAYERS)

    def plain(x, y):
        own, other = vgg(normalised(x, from_signed)), vgg(normalised(y.detach(), from_signed))
        of_maps = sum(distance(own[k], other[k]) * w for k, w in LAYERS.items())
        of_grams = sum(distance(gram(own[k]), gram(other[k])) * w for k, w in style_layers.items())
        return (
            perceptual_weight * of_maps if perceptual_weight > 0 else None,
            style_weight * of_grams if style_weight > 0 else None,
        )

    loss = module.PerceptualLoss(
        LAYERS,
        perceptual_weight=perceptual_weight,
        style_weight=style_weight,
        network=vgg,
        use_input_norm=dtype == torch.float32,
        **options,
    )
    ours, wanted = loss(*images(dtype)), plain(*images(dtype))
    assert [value is None for value in ours] == [value is None for value in wanted]

    def kept(function):
        return lambda x, y: [value for value in function(x, y) if value is not None]

    assert_same(kept(loss), kept(plain), *images(dtype))


def test_defaults_are_the_published_ones():
    wanted = {
        basicsr.PerceptualLoss: {
            "vgg_type": "vgg19", "use_input_norm": True, "range_norm": False,
            "perceptual_weight": 1.0, "style_weight": 0.0, "criterion": "l1",
        },
        mmagic.PerceptualLoss: {
            "layer_weights_style": None, "vgg_type": "vgg19", "use_input_norm": True,
            "perceptual_weight": 1.0, "style_weight": 1.0, "norm_img": True,
            "pretrained": "torchvision://vgg19", "criterion": "l1",
        },
    }  # fmt: skip
    for cls, defaults in wanted.items():
        parameters = list(inspect.signature(cls).parameters.values())
        assert parameters[0].name == "layer_weights"
        positional = [p for p in parameters[1:] if p.kind is p.POSITIONAL_OR_KEYWORD]
        assert {p.name: p.default for p in positional} == defaults


def test_wrong_arguments_are_explained():
    for make in (
        lambda: pix2pixhd.VGGLoss([0]),
        lambda: basicsr.PerceptualLoss(LAYERS),
        lambda: mmagic.PerceptualLoss(LAYERS),
    ):
        with pytest.raises(TypeError, match="network: expected what gives the feature maps"):
            make()
    with pytest.raises(NotImplementedError, match="criterion: expected one of l1, l2, fro"):
        basicsr.PerceptualLoss(LAYERS, criterion="mse", network=Maps())
    with pytest.raises(TypeError, match="layer_weights: expected a dict"):
        basicsr.PerceptualLoss([1.0], network=Maps())
    x, y = images(torch.float32)
    with pytest.raises(ValueError, match="there is no feature map 'conv9'"):
        basicsr.PerceptualLoss({"conv9": 1.0}, network=NamedMaps())(x, y)
    with pytest.raises(ValueError, match="network: expected 5 feature maps at most, got 10"):
        pix2pixhd.VGGLoss(network=lambda x: 2 * Maps()(x))(x, y)


@pytest.mark.parametrize("codebase", ["pix2pixhd", "basicsr"])
def test_fifty_steps_agree(codebase):
    vgg = network(NamedMaps if codebase == "basicsr" else Maps, torch.float64)
    if codebase == "basicsr":
        loss = basicsr.PerceptualLoss(LAYERS, use_input_norm=False, style_weight=2.0, network=vgg)

        def ours(x, y):
            return sum(loss(x, y))

        def plain(x, y):
            own, other = vgg(x), vgg(y)
            of_maps = sum(F.l1_loss(own[k], other[k]) * w for k, w in LAYERS.items())
            grams = ((gram(own[k]), gram(other[k]), w) for k, w in LAYERS.items())
            return of_maps + 2.0 * sum(F.l1_loss(a, b) * w for a, b, w in grams)
    else:
        ours = pix2pixhd.VGGLoss(network=vgg)

        def plain(x, y):
            return sum(w * F.l1_loss(a, b) for w, a, b in zip(WEIGHTS, vgg(x), vgg(y)))

    def step_with(loss):
        def step(generator, critic, of_generator, of_critic, x, y):
            of_generator.zero_grad()
            loss(generator(x), y).backward()
            of_generator.step()

        return step

    torch.manual_seed(1)
    assert_training_agrees(
        step_with(ours),
        step_with(plain),
        (nn.Conv2d(3, 3, 3, padding=1), nn.Linear(1, 1)),
        lambda draws: torch.rand(2, 2, 3, 6, 5, generator=draws).unbind(),
    )
