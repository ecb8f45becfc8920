"""The build switch: what is built, what is refused, and what people are told."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NO_TORCH = "import sys; sys.modules['torch'] = None; import runpy; sys.argv = sys.argv[1:]; "


@pytest.fixture
def checkout(tmp_path):
    """A copy of what a source distribution holds, without anything built."""
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, tmp_path)
    for folder in ("csrc", "ganloss_fast"):
        shutil.copytree(
            ROOT / folder,
            tmp_path / folder,
            ignore=shutil.ignore_patterns("*.so", "_build.json", "__pycache__"),
        )
    return tmp_path


def run(checkout, *command, mode="auto", path=None, **variables):
    environment = {**os.environ, "GANLOSS_FAST_BUILD": mode, "PYTHONPATH": "", **variables}
    if path is not None:
        environment["PATH"] = path
        environment.pop("CXX", None)
    return subprocess.run(
        [sys.executable, *command],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )


def build(checkout, **options):
    return run(checkout, "setup.py", "build_ext", "--inplace", **options)


def facts(checkout):
    return json.loads((checkout / "ganloss_fast" / "_build.json").read_text())


def test_none_builds_pure_python_that_works_and_says_so(checkout):
    assert build(checkout, mode="none").returncode == 0
    assert facts(checkout)["built"] == "none"
    code = (
        "import torch, ganloss_fast as g; x = torch.randn(8, requires_grad=True); "
        "g.discriminator_loss(x, x, 'hinge').backward(); print(x.grad.isfinite().all())"
    )
    assert run(checkout, "-c", code).stdout.strip() == "tensor(True)"
    report = run(checkout, "-m", "ganloss_fast").stdout
    assert "GANLOSS_FAST_BUILD=none when it was installed" in report


def test_without_a_compiler_auto_falls_back_and_says_why(checkout, tmp_path):
    assert build(checkout, path=str(tmp_path)).returncode == 0
    assert "no C++ compiler" in facts(checkout)["reasons"]["native"]
    assert "no C++ compiler" in run(checkout, "-m", "ganloss_fast").stdout


@pytest.mark.parametrize("mode", ["cpu", "cuda"])
def test_an_explicit_request_that_cannot_be_met_is_an_error(checkout, tmp_path, mode):
    result = build(checkout, mode=mode, path=str(tmp_path))
    assert result.returncode != 0
    assert f"GANLOSS_FAST_BUILD={mode} cannot be honoured: no C++ compiler" in result.stderr


def test_an_unknown_mode_names_the_known_ones(checkout):
    result = build(checkout, mode="gpu")
    assert result.returncode != 0
    assert "expected one of auto, cpu, cuda, none, got 'gpu'" in result.stderr


@pytest.fixture
def old_toolkit(tmp_path):
    """A CUDA 12.4 that can only be asked what it knows."""
    nvcc = tmp_path / "toolkit" / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text("#!/bin/sh\nprintf 'compute_75\\ncompute_80\\ncompute_90\\n'\n")
    nvcc.chmod(0o755)
    return nvcc.parent.parent


def test_an_older_nvcc_compiles_for_what_it_knows(checkout, old_toolkit):
    """nvcc before 12.8 does not know Blackwell, and stops at the first name it does not know."""
    code = (
        "import runpy, setuptools; setuptools.setup = lambda **_: None; "
        "print(runpy.run_path('setup.py')['cuda_architectures']())"
    )
    result = run(checkout, "-c", code, mode="none", CUDA_HOME=str(old_toolkit))
    assert result.stdout.strip() == "7.5;8.0;9.0+PTX", result.stderr


def test_without_torch_the_build_says_what_to_do(checkout):
    script = NO_TORCH + "runpy.run_path('setup.py', run_name='__main__')"
    result = run(checkout, "-c", script, "setup.py", "build_ext", "--inplace")
    assert result.returncode != 0
    assert "pip install --no-build-isolation ." in result.stderr


def test_a_source_distribution_needs_no_torch_and_holds_every_source(checkout):
    script = NO_TORCH + "runpy.run_path('setup.py', run_name='__main__')"
    result = run(checkout, "-c", script, "setup.py", "-q", "sdist", "--formats=gztar")
    assert result.returncode == 0, result.stderr
    (archive,) = (checkout / "dist").iterdir()
    listing = subprocess.run(["tar", "-tf", archive], capture_output=True, text=True).stdout
    for source in (ROOT / "csrc").rglob("*.*"):
        assert str(source.relative_to(ROOT)) in listing
    assert "ganloss_fast/py.typed" in listing


def test_a_binary_for_another_torch_is_refused_in_one_line_and_falls_back(checkout):
    (checkout / "ganloss_fast" / "_build.json").write_text(
        json.dumps({"built": "cpu", "reasons": {}, "torch": "2.0.0"})
    )
    code = (
        "import torch, ganloss_fast as g; from ganloss_fast import backends; "
        "print(backends.NATIVE_MISSING); print(float(g.generator_loss(torch.ones(4), 'hinge')))"
    )
    first, second = run(checkout, "-c", code).stdout.strip().splitlines()
    assert "built for torch 2.0.0" in first
    assert "reinstall" in first
    assert second == "-1.0"
