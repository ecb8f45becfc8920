"""The examples run, in plain PyTorch and with ganloss_fast, and both forms train alike."""

from __future__ import annotations

import importlib
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

pytest.importorskip("skimage", reason="the bench extras are not installed")
pytest.importorskip("matplotlib", reason="the bench extras are not installed")

import numpy as np
from PIL import Image

from examples import setting

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SCRIPTS = {"wgan_gp": 200, "lazy_r1": 50, "vocoder_lists": 10}  # one file each, with their steps
SHARED = {"__init__", "networks", "photographs", "setting"}

PIXELS = "--size 16 --batch 2"
TINY = [
    *(
        f"tutorials --loss {loss} {PIXELS}"
        for loss in ("weighted-bce", "hinge-sn", "wgan-gp", "trio-bce")
    ),
    f"tutorials --loss trio-wasserstein {PIXELS}",
    f"tutorials --loss trio-hinge {PIXELS}",
    f"lsgan {PIXELS}",
    f"relativistic {PIXELS}",
    f"conditional --critic projection {PIXELS}",
    f"conditional --critic concatenation {PIXELS}",
    f"image_to_image --recipe pix2pix {PIXELS}",
    f"image_to_image --recipe content {PIXELS}",
    f"cyclegan {PIXELS}",
    f"tokenizer {PIXELS}",
    "vocoder --size 512 --batch 2",
    "motion_prior --size 4 --batch 8",
    f"lightning_module {PIXELS}",
    "data_parallel --size 16 --batch 4",
]

# Two forms in float64 differ by its rounding, which a few steps of Adam hardly amplify.
ROUNDING = 1e-10


@pytest.fixture(autouse=True)
def keep_the_defaults():
    dtype = torch.get_default_dtype()
    yield
    torch.set_default_dtype(dtype)


def run(line: str, losses: str, *options: str) -> dict[str, torch.Tensor]:
    """The loss curves of an example, trained in this process."""
    name, *chosen = line.split()
    if name == "lightning_module":
        pytest.importorskip("lightning", reason="lightning is not installed")
    if name == "data_parallel" and not dist.is_available():
        pytest.skip("torch without distributed")
    example = importlib.import_module(f"examples.{name}")
    common = ["--losses", losses, "--steps", "3", "--double", "--device", "cpu"]
    curves = example.main([*common, *chosen, *options]).curves()
    return {name: torch.tensor(curve) for name, curve in curves.items()}


@pytest.mark.filterwarnings("ignore:.*:UserWarning:lightning", "ignore:.*LeafSpec")
@pytest.mark.parametrize("line", TINY)
def test_both_forms_train_alike_and_draw_their_picture(line, tmp_path):
    file = tmp_path / "picture.png"
    reference, fast = run(line, "reference"), run(line, "fast", "--picture", str(file))
    torch.testing.assert_close(fast, reference, rtol=ROUNDING, atol=ROUNDING)
    for curve in fast.values():
        assert len(curve) == 3
        assert curve.isfinite().all()
        assert len(curve.unique()) == 3  # something moves
    with Image.open(file) as picture:
        assert picture.size == (setting.WIDTH, setting.HEIGHT)
        assert np.std(np.array(picture.convert("L"))) > 10


@pytest.mark.parametrize("other", ["--loss trio-bce", "--loss wgan-gp --seed 1"])
def test_another_loss_and_another_seed_are_other_runs(other):
    """Else that both forms agree would prove nothing."""
    first, second = (
        run(f"tutorials --loss wgan-gp {PIXELS}", "fast"),
        run(f"tutorials {other} {PIXELS}", "fast"),
    )
    for name, curve in first.items():
        assert ((curve - second[name]).abs() > 1e-4).all()


@pytest.mark.parametrize(("name", "steps"), SCRIPTS.items())
def test_a_script_trains_and_prints_finite_losses(name, steps):
    command = [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py"), str(steps)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    printed = re.findall(r"(?:critic|generator) +(\S+)", run.stdout)
    assert len(printed) == 2
    assert all(math.isfinite(float(number)) for number in printed)


def test_an_example_runs_from_a_shell(tmp_path):
    command = [sys.executable, "-W", "error", "-m", "examples.lsgan", "--steps", "1"]
    command += ["--size", "16", "--batch", "2", "--picture", str(tmp_path / "lsgan.png")]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert (tmp_path / "lsgan.png").stat().st_size > 0


NAMES = {path.stem for path in EXAMPLES.glob("*.py")} - SHARED


def test_every_example_is_run():
    assert {line.split()[0] for line in TINY} | set(SCRIPTS) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_the_page_of_examples_names_it(name):
    assert f"`{name}`" in (ROOT / "docs" / "examples.md").read_text()
