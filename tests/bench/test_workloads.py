"""The workloads: their shapes are those of the codebases, and their forms compute the same."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

pytest.importorskip("rich", reason="the bench extras are not installed")

from ganloss_fast.bench import agreement, catalogue, real
from ganloss_fast.bench.shapes import OUTPUTS
from ganloss_fast.bench.steps import (
    audio,
    classes,
    images,
    layouts,
    penalised,
    shared_logits,
    spectra,
    styles,
    tokenizers,
    translation,
    vocoders,
)
from ganloss_fast.bench.steps.training import Form, with_compiled_networks
from ganloss_fast.bench.workload import COMPILE, DROP_IN, EAGER, HELPERS, OURS, Workload

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "maps", "elements"),  # of one sample, as the codebases' own models give them
    [
        ("pix2pixHD 1024x512", 12, 25.4e6),
        ("HiFi-GAN", 54, 7.705e6),
        ("BigVGAN v2, periods", 30, 22.7e6),
        ("EnCodec", 25, 15.1e6),
        ("DAC", 100, 12.4e6),
    ],
)
def test_the_feature_maps_are_as_many_and_as_large_as_those_of_the_codebase(name, maps, elements):
    found = OUTPUTS[name].maps
    assert len(found) == maps
    assert sum(map(math.prod, found)) == pytest.approx(elements, rel=0.004)


@pytest.mark.parametrize(
    ("name", "logits"),
    [
        ("PatchGAN 256", [(1, 1, 30, 30)]),
        ("PatchGAN 512", [(1, 1, 62, 62)]),
        ("pix2pixHD 1024x512", [(1, 1, 67, 131), (1, 1, 35, 67), (1, 1, 19, 35)]),
        ("SPADE 256", [(1, 1, 35, 35), (1, 1, 19, 19)]),
        ("HiFi-GAN", [(1, n) for n in (102, 102, 105, 105, 110, 128, 65, 33)]),
        ("BigVGAN v2, periods", [(1, n) for n in (810, 810, 810, 812, 814)]),
        (
            "EnCodec",
            [(1, a * b) for a, b in ((90, 65), (43, 129), (184, 33), (372, 17), (747, 9))],
        ),
        (
            "DAC",
            [(1, n) for n in (104 * 2, 69 * 3, 42 * 5, 30 * 7, 19 * 11, 33 * 130, 66**2, 131 * 34)],
        ),
    ],
)
def test_the_logits_have_the_shapes_of_the_codebase(name, logits):
    assert list(OUTPUTS[name].logits) == logits


def test_every_workload_says_what_it_is():
    for each in catalogue.WORKLOADS:
        assert each.shapes, each.name
        assert each.bytes or "step" in each.name + each.direction, each.name
        of_a_codebase = each.section.startswith(("real", "HiFi-GAN", "whole steps"))
        assert each.source or not of_a_codebase, each.name


SMALL = [each for each in real.WORKLOADS if (each.bytes or 0) < 10**7]


@pytest.mark.parametrize("each", SMALL, ids=lambda each: each.name)
def test_ours_and_the_code_as_written_agree(each: Workload):
    contenders = each.build(CPU)
    contenders.pop(COMPILE)
    results = {name: work() for name, work in contenders.items()}
    for name, found in results.items():
        assert agreement.distance(results[EAGER], found) < 1e-5, name
    assert OURS in results


STEPS = {
    "HiFi-GAN": lambda: vocoders.hifigan_step(CPU, 512, vocoders.narrow(2)),
    "ParallelWaveGAN": lambda: audio.parallel_wavegan_step(CPU, samples=512, width=2),
    "DAC": lambda: audio.dac_step(CPU, samples=512, width=2),
    "BigVGAN v2": lambda: vocoders.bigvgan_step(CPU, samples=512, width=2),
    "EnCodec": lambda: spectra.encodec_step(CPU, samples=512, width=2),
    "taming": lambda: images.taming_step(CPU, size=32, width=4),
    "LlamaGen": lambda: tokenizers.llamagen_step(CPU, size=32, width=4),
    "ESRGAN": lambda: images.esrgan_step(CPU, size=32, width=4),
    "pix2pixHD": lambda: translation.pix2pixhd_step(CPU, size=32, width=4),
    "SPADE": lambda: layouts.spade_step(CPU, size=32, width=2),
    "BigGAN": lambda: classes.biggan_step(CPU, width=4, batch=3, discriminator_steps=2),
    "StyleGAN2-ADA, main phases": lambda: styles.stylegan2_ada_step(
        CPU, ("Gmain", "Dmain"), stages=1, width=4, batch=4
    ),
    "StyleGAN2-ADA, all phases": lambda: styles.stylegan2_ada_step(CPU, stages=1, width=4, batch=8),
    "R3GAN": lambda: shared_logits.r3gan_step(CPU, stages=2, width=8, batch=4),
    "motion prior": lambda: shared_logits.motion_prior_step(CPU, 12, (16, 8), batch=6),
    "PyTorch-GAN wgan_gp": lambda: penalised.wgan_gp_step(CPU, width=16, batch=8),
    "CTGAN": lambda: penalised.ctgan_step(CPU, rows=40, numbers=1, categories=(3, 4)),
}


def forms_of(name: str) -> dict[str, Form]:
    """But the compiled one, which takes a minute."""
    torch.manual_seed(0)
    steps = STEPS[name]()
    steps.pop(COMPILE, None)
    return steps


@pytest.mark.parametrize("name", STEPS)
def test_the_three_forms_of_a_step_learn_the_same(name):
    steps = forms_of(name)
    assert list(steps)[:2] == [EAGER, DROP_IN]
    assert all(form == HELPERS or form.startswith(DROP_IN) for form in list(steps)[2:])
    for _ in range(2):  # the second step starts from the gradients that the first one left
        results = {form: step() for form, step in steps.items()}
        for form, found in results.items():
            assert agreement.distance(results[EAGER], found) < 3e-5, form
            assert all(gradient.abs().sum() > 0 for gradient in found)


@pytest.mark.parametrize("name", STEPS)
def test_a_step_moves_all_weights_of_both_sides(name):
    for form, step in forms_of(name).items():
        sides = [step.training.discriminator, step.training.generator]
        if name == "motion prior":
            sides.pop()  # it stands for a policy, which learns otherwise
        step.training.learn(1e-3)
        before = [[p.clone() for p in side.parameters()] for side in sides]
        step()
        for side, old in zip(sides, before):
            still = [p for p, was in zip(side.parameters(), old) if torch.equal(p, was)]
            # The last bias of a critic, where real and fake samples shift it against each other.
            assert all(p.shape == (1,) for p in still), form


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # Dynamo reads it, and hides this
@pytest.mark.parametrize("name", ["ParallelWaveGAN", "DAC", "ESRGAN", "motion prior"])
def test_the_compiled_form_of_a_step_learns_the_same(name, monkeypatch):
    (workload,) = (each for each in catalogue.WORKLOADS if each.name == f"{name}: whole step")
    assert COMPILE in workload.build(CPU)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch.manual_seed(0)
    steps = STEPS[name]()
    if COMPILE not in steps:
        steps = with_compiled_networks(lambda device: steps)(CPU)
    for _ in range(2):
        written, found = steps[EAGER](), steps[COMPILE]()
        assert agreement.distance(written, found) < 3e-5


def test_steps_that_learn_something_else_are_told_apart():
    torch.manual_seed(0)
    steps = STEPS["CTGAN"]()
    written = steps[EAGER]()
    assert agreement.distance(written, [1.001 * gradient for gradient in written]) > 5e-4


def test_every_whole_step_is_measured():
    names = {each.name for each in catalogue.WORKLOADS if each.section == "whole steps"}
    assert names == {f"{name}: whole step" for name in STEPS}
