"""The examples run as they stand, for a few steps, and nothing in them warns."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize(
    ("name", "steps"), [("wgan_gp", 200), ("lazy_r1", 50), ("vocoder_lists", 10)]
)
def test_an_example_trains_and_prints_finite_losses(name, steps):
    command = [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py"), str(steps)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    printed = re.findall(r"(?:critic|generator) +(\S+)", run.stdout)
    assert len(printed) == 2
    assert all(math.isfinite(float(number)) for number in printed)


def test_every_example_is_run():
    parametrized = {"wgan_gp", "lazy_r1", "vocoder_lists"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == parametrized
