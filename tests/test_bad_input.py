"""Bad input raises a ValueError or TypeError that names the argument and says what to do.

Never a crash, and never a silently broadcast result.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import by_keyword
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ganloss_fast as gf
from ganloss_fast import backends

LOGITS = torch.zeros(4, 1)
IMAGES = torch.zeros(4, 3, 8, 8)
ELSEWHERE = torch.zeros(4, 1, device="meta")
SPARSE = LOGITS.to_sparse()
INTEGERS = torch.zeros(4, 1, dtype=torch.int64)
COMPLEX = torch.zeros(4, 1, dtype=torch.complex64)
PAIRED = gf.BCE(relativistic="paired")
AVERAGE = gf.LeastSquares(relativistic="average")


class Bad(NamedTuple):
    """A call, the error it must raise, and what its message must contain."""

    call: Callable[[], object]
    error: type[Exception]
    says: str


def d_loss(real: object = LOGITS, fake: object = LOGITS, loss: object = "hinge", **options):
    return lambda: gf.discriminator_loss(real, fake, loss, **options)


def d_details(real: object = LOGITS, fake: object = LOGITS, loss: object = "hinge", **options):
    return lambda: gf.discriminator_loss_details(real, fake, loss, **options)


def g_loss(fake: object = LOGITS, loss: object = "hinge", **options):
    return lambda: gf.generator_loss(fake, loss, **options)


def matching(real: object = (IMAGES,), fake: object = (IMAGES,), **options):
    return lambda: gf.feature_matching_loss(real, fake, **options)


def mix(real: object = IMAGES, fake: object = IMAGES, alpha: object = None, **options):
    return lambda: gf.interpolate(real, fake, alpha, **options)


def penalty(critic: object, real: object = IMAGES, fake: object = IMAGES, **options):
    return lambda: by_keyword.gradient_penalty(critic, real, fake, **options)


def make(loss: type, **options):
    return lambda: loss(**options)


def critic(x: Tensor) -> Tensor:
    return x.square().flatten(1).sum(1)


WRONG_LOGITS = {
    "None": Bad(d_loss(real=None), TypeError, "^real: .*None"),
    "None for fake": Bad(d_loss(fake=None), TypeError, "^fake: .*None"),
    "a number": Bad(d_loss(fake=1.0), TypeError, "^fake: .*float"),
    "a numpy array": Bad(d_loss(real=LOGITS.numpy()), TypeError, "^real: .*ndarray"),
    "a generator of tensors": Bad(d_loss(real=(t for t in [LOGITS])), TypeError, "^real: "),
    "a dict": Bad(d_loss(real={"logits": LOGITS}), TypeError, "^real: .*dict"),
    "a list with None": Bad(d_loss([LOGITS, None], [LOGITS] * 2), TypeError, r"^real\[1\]: "),
    "integer logits": Bad(d_loss(real=INTEGERS), TypeError, r"^real: .*int64.*real\.float\(\)"),
    "bool logits": Bad(d_loss(fake=LOGITS > 0), TypeError, "^fake: .*bool"),
    "complex logits": Bad(d_loss(fake=COMPLEX), TypeError, "^fake: .*complex64"),
    "integers in a list": Bad(d_loss([INTEGERS], [LOGITS]), TypeError, r"^real\[0\]: .*int64"),
    "sparse logits": Bad(d_loss(real=SPARSE), TypeError, "^real: .*sparse"),
    "integer logits for the generator": Bad(g_loss(INTEGERS), TypeError, "^fake: .*int64"),
    "an empty list": Bad(d_loss([], []), ValueError, "^real: .*empty"),
    "an empty list for fake": Bad(d_loss([LOGITS], []), ValueError, "^fake: .*empty"),
    "an empty list for the generator": Bad(g_loss([]), ValueError, "^fake: .*empty"),
    "lists of different lengths": Bad(
        d_loss([LOGITS] * 8, [LOGITS] * 5), ValueError, "real and fake .*8 real and 5 fake"
    ),
    "a list against a tensor": Bad(
        d_loss([LOGITS] * 2, LOGITS), ValueError, "real and fake .*2 real and 1 fake"
    ),
    "nested lists": Bad(
        d_loss([[IMAGES, LOGITS]] * 2, [[IMAGES, LOGITS]] * 2),
        ValueError,
        r"^real: .*\[outputs\[-1\] for outputs in real\]",
    ),
    "nested lists for the generator": Bad(
        g_loss([[IMAGES, LOGITS]]), ValueError, r"^fake: .*\[outputs\[-1\] for outputs in fake\]"
    ),
    "two devices": Bad(d_loss(fake=ELSEWHERE), ValueError, "^fake: .*cpu.*meta"),
    "two devices in a list": Bad(
        d_loss([LOGITS, ELSEWHERE], [LOGITS] * 2), ValueError, "^real: .*cpu.*meta"
    ),
}

WRONG_LOSSES = {
    "an unknown name": Bad(
        d_loss(loss="hindge"), ValueError, "^loss: .*bce, hinge, least_squares, .*'hindge'"
    ),
    "an unknown name for the generator": Bad(g_loss(loss="ls"), ValueError, "^loss: .*'ls'"),
    "None": Bad(d_loss(loss=None), TypeError, "^loss: .*None"),
    "a class instead of a loss": Bad(d_loss(loss=gf.Hinge), TypeError, r"^loss: .*Hinge"),
    "a torch module": Bad(d_loss(loss=nn.BCEWithLogitsLoss()), TypeError, "^loss: "),
    "real for a loss without it": Bad(g_loss(real=LOGITS), ValueError, "^real: .*Leave it out"),
    "no real for a paired loss": Bad(g_loss(loss=PAIRED), ValueError, "^real: .*relativistic"),
    "no real for an average loss": Bad(g_loss(loss=AVERAGE), ValueError, "^real: .*relativistic"),
    "a rank instead of a process group": Bad(
        d_loss(loss=AVERAGE, process_group=0), TypeError, "^process_group: .*WORLD, got int .0."
    ),
    "a process group for the generator that is none": Bad(
        g_loss(loss=AVERAGE, real=LOGITS, process_group="gloo"), TypeError, "^process_group: "
    ),
    "[B] against [B, 1], paired": Bad(
        d_loss(LOGITS, LOGITS[:, 0], PAIRED), ValueError, r"\[4, 1\] and fake \[4\]"
    ),
    "[B] against [B, 1], paired generator": Bad(
        g_loss(LOGITS[:, 0], PAIRED, real=LOGITS), ValueError, r"\[4, 1\] and fake \[4\]"
    ),
    "another batch, paired": Bad(
        d_loss(LOGITS, LOGITS[:1], PAIRED), ValueError, r"\[4, 1\] and fake \[1, 1\]"
    ),
    "two dtypes, paired": Bad(
        d_loss(LOGITS, LOGITS.half(), PAIRED), ValueError, "real torch.float32 and fake .*float16"
    ),
}

WRONG_OPTIONS = {
    "an unknown output_reduction": Bad(
        d_loss(output_reduction="none"), ValueError, "^output_reduction: .*sum, mean.*'none'"
    ),
    "an unknown output_reduction with details": Bad(
        d_details(output_reduction="none"), ValueError, "^output_reduction: "
    ),
    "an unknown output_reduction for the generator": Bad(
        g_loss(output_reduction=None), ValueError, "^output_reduction: .*None"
    ),
    "an infinite weight": Bad(d_loss(real_weight=math.inf), ValueError, "^real_weight: .*finite"),
    "a NaN weight": Bad(d_loss(fake_weight=math.nan), ValueError, "^fake_weight: .*finite"),
    "a weight for each sample": Bad(
        d_loss(real_weight=torch.ones(4)), ValueError, r"^real_weight: .*0-d.*\[4\]"
    ),
    "a weight of shape [1]": Bad(
        d_loss(fake_weight=torch.ones(1)), ValueError, r"^fake_weight: .*0-d.*\[1\]"
    ),
    "an integer tensor as weight": Bad(
        d_loss(real_weight=torch.tensor(1)), ValueError, "^real_weight: .*floating"
    ),
    "a string as weight": Bad(d_loss(real_weight="1"), TypeError, "^real_weight: .*'1'"),
    "None as weight": Bad(d_loss(fake_weight=None), TypeError, "^fake_weight: .*None"),
    "a bool as weight": Bad(d_loss(real_weight=True), TypeError, "^real_weight: .*bool"),
    "a weight for a paired loss": Bad(
        d_loss(loss=PAIRED, real_weight=2.0), ValueError, "^real_weight and fake_weight .*paired"
    ),
    "a tensor weight for a paired loss": Bad(
        d_loss(loss=PAIRED, fake_weight=torch.tensor(1.0)), ValueError, "fake_weight .*paired"
    ),
    "a weight for paired details": Bad(
        d_details(loss=PAIRED, fake_weight=2.0), ValueError, "fake_weight .*paired"
    ),
    "a NaN label": Bad(make(gf.BCE, real_label=math.nan), ValueError, "^real_label: .*finite"),
    "an infinite label": Bad(
        make(gf.LeastSquares, fake_label=math.inf), ValueError, "^fake_label: .*finite"
    ),
    "a string as label": Bad(make(gf.BCE, generator_label="1"), TypeError, "^generator_label: "),
    "an integer label map": Bad(make(gf.BCE, real_label=INTEGERS), TypeError, "^real_label: "),
    "a label map that requires grad": Bad(
        make(gf.LeastSquares, real_label=torch.ones(4, 1, requires_grad=True)),
        ValueError,
        "^real_label: .*detach",
    ),
    "a label map of another shape": Bad(
        d_loss(loss=gf.BCE(real_label=torch.ones(4))),
        ValueError,
        r"^real_label: .*\[4, 1\], .*got \[4\]",
    ),
    "a least-squares label map of another shape": Bad(
        d_loss(loss=gf.LeastSquares(fake_label=torch.ones(2, 1))),
        ValueError,
        r"^fake_label: .*\[4, 1\], .*got \[2, 1\]",
    ),
    "a label map for one of two outputs": Bad(
        d_loss([LOGITS, LOGITS[:2]], [LOGITS] * 2, gf.BCE(real_label=torch.ones(4, 1))),
        ValueError,
        r"^real_label: .*\[2, 1\], .*got \[4, 1\]",
    ),
    "a label map elsewhere": Bad(
        d_loss(loss=gf.BCE(real_label=ELSEWHERE)), ValueError, "^real_label: .*cpu.*meta"
    ),
    "a NaN margin": Bad(make(gf.Hinge, margin=math.nan), ValueError, "^margin: .*finite"),
    "a tensor as margin": Bad(make(gf.Hinge, margin=torch.ones(1)), TypeError, "^margin: "),
    "an unknown generator_form": Bad(
        make(gf.Hinge, generator_form="relu"), ValueError, "^generator_form: .*linear, hinge"
    ),
    "an infinite drift": Bad(make(gf.Wasserstein, drift=math.inf), ValueError, "^drift: "),
    "an unknown relativistic form": Bad(
        make(gf.BCE, relativistic="mean"), ValueError, "^relativistic: .*paired, average"
    ),
    "relativistic with a label": Bad(
        make(gf.BCE, real_label=0.9, relativistic="paired"), ValueError, "^real_label: .*paired"
    ),
    "relativistic with a least-squares label": Bad(
        make(gf.LeastSquares, fake_label=-1.0, relativistic="average"),
        ValueError,
        "^fake_label: .*average",
    ),
    "relativistic with a label map": Bad(
        make(gf.BCE, generator_label=LOGITS, relativistic="paired"),
        ValueError,
        "^generator_label: ",
    ),
    "relativistic and saturating": Bad(
        make(gf.BCE, saturating=True, relativistic="average"), ValueError, "^saturating: "
    ),
    "relativistic with a margin": Bad(
        make(gf.Hinge, margin=2.0, relativistic="paired"), ValueError, "^margin: "
    ),
    "relativistic with a generator form": Bad(
        make(gf.Hinge, generator_form="hinge", relativistic="paired"),
        ValueError,
        "^generator_form: ",
    ),
    "saturating with a generator label": Bad(
        make(gf.BCE, saturating=True, generator_label=0.9), ValueError, "^generator_label: "
    ),
    "relativistic Wasserstein": Bad(
        make(gf.Wasserstein, relativistic="paired"), TypeError, "relativistic"
    ),
}

WRONG_FEATURES = {
    "a tensor": Bad(matching(real=IMAGES), TypeError, "^real_features: "),
    "None": Bad(matching(fake=None), TypeError, "^fake_features: .*None"),
    "an empty list": Bad(matching([], []), ValueError, "^real_features"),
    "an empty list of one discriminator": Bad(
        matching([[IMAGES], []], [[IMAGES], []]), ValueError, r"^real_features\[1\]"
    ),
    "integer maps": Bad(matching([INTEGERS]), TypeError, r"^real_features\[0\]: .*int64"),
    "three levels of lists": Bad(matching([[[IMAGES]]], [[[IMAGES]]]), ValueError, "flat"),
    "a tensor beside a list": Bad(
        matching([[IMAGES], IMAGES], [[IMAGES], IMAGES]),
        (TypeError, ValueError),
        r"real_features\b.*1",
    ),
    "a list beside a tensor": Bad(
        matching([IMAGES, [IMAGES]], [IMAGES, [IMAGES]]), ValueError, "real_features.*entry 1"
    ),
    "different numbers of maps": Bad(
        matching([IMAGES] * 3, [IMAGES] * 2), ValueError, r"real_features and .*\[3\].*\[2\]"
    ),
    "different numbers of discriminators": Bad(
        matching([[IMAGES]] * 2, [[IMAGES]]), ValueError, r"real_features and .*\[1, 1\].*\[1\]"
    ),
    "another batch": Bad(
        matching([IMAGES], [IMAGES[:1]]), ValueError, r"map 0 .*\[4, 3, 8, 8\].*\[1, 3, 8, 8\]"
    ),
    "[B] against [B, 1]": Bad(
        matching([LOGITS], [LOGITS[:, 0]]), ValueError, r"map 0 .*\[4, 1\].*\[4\]"
    ),
    "two dtypes": Bad(matching([IMAGES], [IMAGES.half()]), ValueError, "map 0 .*float32.*float16"),
    "two devices": Bad(matching([LOGITS], [ELSEWHERE]), ValueError, "^fake_features: .*meta"),
    "no map left": Bad(matching(include_last=False), ValueError, "^real_features: .*left"),
    "an unknown criterion": Bad(matching(criterion="l2"), ValueError, "^criterion: .*l1, mse"),
    "an unknown layer_reduction": Bad(
        matching(layer_reduction="none"), ValueError, "^layer_reduction: "
    ),
    "an unknown discriminator_reduction": Bad(
        matching(discriminator_reduction=2), ValueError, "^discriminator_reduction: "
    ),
    "a NaN weight": Bad(matching(weight=math.nan), ValueError, "^weight: .*finite"),
    "a weight for each map": Bad(matching(weight=[1.0, 2.0]), TypeError, "^weight: "),
    "frozen of a list": Bad(
        lambda: gf.frozen([nn.Linear(1, 1)]).__enter__(), TypeError, "^modules: .*Unpack"
    ),
    "frozen of None": Bad(lambda: gf.frozen(None).__enter__(), TypeError, "^modules: .*None"),
}

WRONG_SAMPLES = {
    "None": Bad(mix(real=None), TypeError, "^real: .*None"),
    "a list": Bad(mix(fake=[IMAGES]), TypeError, "^fake: .*list"),
    "integer samples": Bad(mix(IMAGES.to(torch.uint8), IMAGES), TypeError, "^real: .*uint8"),
    "another batch": Bad(mix(fake=IMAGES[:1]), ValueError, r"^fake: .*\[4, 3, 8, 8\].*\[1, 3"),
    "[B] against [B, 1]": Bad(mix(LOGITS, LOGITS[:, 0]), ValueError, r"^fake: .*\[4, 1\].*\[4\]"),
    "two devices": Bad(mix(LOGITS, ELSEWHERE), ValueError, "^fake: .*cpu.*meta"),
    "0-d samples": Bad(mix(torch.zeros(()), torch.zeros(())), ValueError, "^real: .*0-d"),
    "alpha [1]": Bad(mix(alpha=torch.rand(1)), ValueError, r"^alpha: .*\[4\].*got \[1\]"),
    "alpha of another batch": Bad(mix(alpha=torch.rand(3)), ValueError, r"^alpha: .*got \[3\]"),
    "alpha for each row of pixels": Bad(
        mix(alpha=torch.rand(8)), ValueError, r"^alpha: .*got \[8\]"
    ),
    "alpha [1, B]": Bad(mix(alpha=torch.rand(1, 4)), ValueError, r"^alpha: .*got \[1, 4\]"),
    "alpha [B, 1]": Bad(mix(alpha=torch.rand(4, 1)), ValueError, r"^alpha: .*got \[4, 1\]"),
    "alpha for each channel": Bad(
        mix(alpha=torch.rand(4, 3, 1, 1)), ValueError, r"^alpha: .*got \[4, 3, 1, 1\]"
    ),
    "integer alpha": Bad(mix(alpha=torch.ones(4).long()), TypeError, "^alpha: .*int64"),
    "alpha elsewhere": Bad(mix(alpha=torch.rand(4, device="meta")), ValueError, "^alpha: .*meta"),
    "a NaN alpha": Bad(mix(alpha=math.nan), ValueError, "^alpha: .*finite"),
    "a list as alpha": Bad(mix(alpha=[0.1] * 4), TypeError, "^alpha: .*list"),
    "alpha and rng": Bad(mix(alpha=0.5, rng=torch.Generator()), ValueError, "^rng: "),
    "a seed as rng": Bad(mix(rng=3), TypeError, "^rng: .*3"),
}

WRONG_CRITICS = {
    "None": Bad(penalty(None), TypeError, "^critic: .*None"),
    "a tensor": Bad(penalty(IMAGES), TypeError, "^critic: "),
    "it returns a tuple": Bad(
        penalty(lambda x: (x, critic(x))), TypeError, "^critic: .*tuple of 2.*lambda"
    ),
    "it returns a nested list": Bad(
        penalty(lambda x: [[x], critic(x)]), TypeError, "^critic: .*list of 1.*lambda"
    ),
    "it returns None": Bad(penalty(lambda x: None), TypeError, "^critic: .*None"),
    "it returns a number": Bad(penalty(lambda x: 1.0), TypeError, "^critic: .*float"),
    "it returns something detached": Bad(
        penalty(lambda x: critic(x).detach()), ValueError, "^critic: .*does not depend"
    ),
    "it works under no_grad": Bad(
        penalty(torch.no_grad()(critic)), ValueError, "^critic: .*does not depend"
    ),
    "it returns integers": Bad(
        penalty(lambda x: critic(x).round().long()), TypeError, "^critic: .*int64"
    ),
    "it ignores its input": Bad(
        penalty(lambda x: torch.ones(4, requires_grad=True) * 2),
        ValueError,
        "^critic: .*does not depend",
    ),
    "it returns its parameter": Bad(
        penalty(lambda x: torch.ones(4, requires_grad=True)), ValueError, "^critic: .*not depend"
    ),
    "critic_args is a tensor": Bad(
        penalty(critic, critic_args=IMAGES), TypeError, "^critic_args: "
    ),
    "critic_args is a string": Bad(penalty(critic, critic_args="y"), TypeError, "^critic_args: "),
    "args of a Call are a string": Bad(lambda: gf.Call(critic, "y"), TypeError, "^args: "),
    "kwargs of a Call are a list": Bad(
        lambda: gf.Call(critic, kwargs=["y"]), TypeError, "^kwargs: "
    ),
    "arguments given twice": Bad(
        lambda: gf.r1_penalty(gf.Call(critic, (1,)), IMAGES, critic_args=(2,)),
        ValueError,
        "^critic_args: the Call has arguments already",
    ),
    "how is a dict": Bad(
        penalty(critic, how={"chunk_size": 2}), TypeError, r"^how: expected Differentiation\("
    ),
    "samples of another batch": Bad(penalty(critic, fake=IMAGES[:2]), ValueError, "^fake: "),
    "integer samples": Bad(penalty(critic, real=IMAGES.int()), TypeError, "^real: .*int32"),
    "alpha of another shape": Bad(penalty(critic, alpha=torch.rand(2)), ValueError, "^alpha: "),
    "a NaN weight": Bad(penalty(critic, weight=math.nan), ValueError, "^weight: .*finite"),
    "a weight for each sample": Bad(
        penalty(critic, weight=torch.ones(4)), ValueError, r"^weight: .*\[4\]"
    ),
    "a string as target": Bad(penalty(critic, target="1"), TypeError, "^target: "),
    "an infinite target": Bad(penalty(critic, target=math.inf), ValueError, "^target: .*finite"),
    "a tensor as target": Bad(penalty(critic, target=torch.ones(())), TypeError, "^target: "),
}

EVERYTHING = {
    f"{what}: {name}": bad
    for what, table in {
        "logits": WRONG_LOGITS,
        "loss": WRONG_LOSSES,
        "options": WRONG_OPTIONS,
        "features": WRONG_FEATURES,
        "samples": WRONG_SAMPLES,
        "critic": WRONG_CRITICS,
    }.items()
    for name, bad in table.items()
}


@pytest.mark.parametrize("name", EVERYTHING)
def test_bad_input_is_refused_with_a_message_that_helps(name):
    bad = EVERYTHING[name]
    with pytest.raises(bad.error, match=bad.says):
        bad.call()


@pytest.mark.parametrize("name", ["logits: two devices", "critic: it returns a tuple"])
def test_the_checks_come_before_the_backend(name):
    with backends.use_backend("reference"), pytest.raises(EVERYTHING[name].error):
        EVERYTHING[name].call()


class Evil:
    """Waits, prints everything, or fails where a message asks for its repr."""

    def __repr__(self) -> str:
        raise AssertionError("a message must not ask for this")


@dataclasses.dataclass
class Features:
    logits: Tensor
    maps: list


HUGE = {
    "a dict": {"logits": LOGITS, "maps": [torch.zeros(100, 100)] * 50},
    "a dataclass": Features(LOGITS, [torch.zeros(100, 100)] * 50),
    "an object": Evil(),
    "a class": Evil,
    "a long string": "x" * 100_000,
    "bytes": b"x" * 100_000,
    "a nested list": [[LOGITS] * 1000] * 1000,
    "a list of objects": [Evil()] * 1000,
    "a dict of objects": {Evil(): Evil()},
    "an array": np.zeros((100, 100)),
}


@pytest.mark.parametrize("value", HUGE.values(), ids=HUGE)
@pytest.mark.parametrize(
    "call",
    [
        lambda x: gf.discriminator_loss(x, x, "hinge"),
        lambda x: gf.generator_loss(LOGITS, x),
        lambda x: gf.generator_loss(LOGITS, "hinge", weight=x),
        lambda x: gf.generator_loss(LOGITS, "hinge", mask=x),
        lambda x: gf.generator_loss(LOGITS, "hinge", reduction=x),
        lambda x: gf.generator_loss(LOGITS, AVERAGE, real=LOGITS, process_group=x),
        lambda x: gf.BCE(real_label=x),
        lambda x: gf.BCE(relativistic=x),
        lambda x: gf.feature_matching_loss(x, [LOGITS]),
        lambda x: gf.r1_penalty(lambda _: x, LOGITS),
        lambda x: gf.r1_penalty(torch.nn.Linear(1, 1), x),
        lambda x: gf.gradient_penalty(torch.nn.Linear(1, 1), LOGITS, LOGITS, alpha=x),
        lambda x: gf.gradient_penalty(torch.nn.Linear(1, 1), LOGITS, LOGITS, at=x),
        lambda x: gf.gradient_penalty(torch.nn.Linear(1, 1), LOGITS, LOGITS, mask=x),
        lambda x: gf.gradient_penalty(
            torch.nn.Linear(1, 1), LOGITS, LOGITS, how=gf.Differentiation(chunk_size=x)
        ),
        lambda x: gf.LazyRegularizer(x),
        lambda x: gf.set_backend(x),
    ],
)
def test_a_message_is_short_and_looks_at_no_data(call, value):
    """Printing tensors waits for the device and buries the advice."""
    with pytest.raises((TypeError, ValueError)) as error:
        call(value)
    assert len(str(error.value)) < 400
