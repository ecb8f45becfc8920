"""The build switch: what is built, what is refused, and what people are told."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
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


def test_the_codes_of_the_gpu_kernels_are_read_off_the_flags(checkout):
    """A code that is none, such as the word arch, would stop every import beside a GPU."""
    code = (
        "import runpy, setuptools; setuptools.setup = lambda **_: None; "
        "print(sorted(runpy.run_path('setup.py')['compiled_codes']()))"
    )
    result = run(checkout, "-c", code, mode="none", TORCH_CUDA_ARCH_LIST="8.0;9.0a;12.0+PTX")
    assert result.stdout.strip() == "['compute_120', 'sm_120', 'sm_80', 'sm_90a']", result.stderr


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


def without_torch(checkout, *command, **options):
    script = NO_TORCH + "runpy.run_path('setup.py', run_name='__main__')"
    return run(checkout, "-c", script, "setup.py", *command, **options)


USE = (
    "import torch, ganloss_fast as g; x = torch.randn(8, requires_grad=True); "
    "[g.discriminator_loss(x, x, 'hinge').backward() for _ in range(3)]; "
    "print(x.grad.isfinite().all())"
)


def test_without_torch_pure_python_is_built_and_says_once_how_to_get_the_kernels(checkout):
    """As in pip's isolated environment."""
    assert without_torch(checkout, "build_ext", "--inplace").returncode == 0
    assert "no torch to compile for" in facts(checkout)["reasons"]["native"]
    used = run(checkout, "-c", USE)
    assert used.stdout.strip() == "tensor(True)"
    assert used.stderr.count("this is the pure-Python package") == 1
    assert "-m pip install --no-build-isolation --no-deps --no-cache-dir" in used.stderr
    assert run(checkout, "-c", "import ganloss_fast").stderr == ""


def test_who_asked_for_pure_python_is_not_told_how_to_get_the_kernels(checkout):
    assert without_torch(checkout, "build_ext", "--inplace", mode="none").returncode == 0
    assert "pure-Python" not in run(checkout, "-c", USE).stderr


@pytest.mark.parametrize("mode", ["cpu", "cuda"])
def test_an_explicit_request_without_torch_says_what_to_do(checkout, mode):
    result = without_torch(checkout, "build_ext", "--inplace", mode=mode)
    assert result.returncode != 0
    assert "pip install --no-build-isolation ." in result.stderr


def test_a_wheel_without_kernels_is_for_every_system(checkout):
    result = without_torch(checkout, "-q", "bdist_wheel")
    assert result.returncode == 0, result.stderr
    (wheel,) = (checkout / "dist").iterdir()
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"ganloss_fast"}
    assert "ganloss_fast/_build.json" in names


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_build_and_run_pure_python(checkout, platform):
    patch = f"import sys; sys.platform = {platform!r}; "
    plan = run(
        checkout,
        "-c",
        "import setuptools, torch; " + patch + "setuptools.setup = lambda **_: None; "
        "import runpy; print(runpy.run_path('setup.py')['build_plan']())",
    )
    assert "the native kernels are for Linux" in plan.stdout, plan.stderr
    used = run(checkout, "-c", "import torch; " + patch + USE)
    assert used.stdout.strip() == "tensor(True)"
    assert used.stderr == ""


def test_a_source_distribution_needs_no_torch_and_holds_every_source(checkout):
    result = without_torch(checkout, "-q", "sdist", "--formats=gztar")
    assert result.returncode == 0, result.stderr
    (archive,) = (checkout / "dist").iterdir()
    listing = subprocess.run(["tar", "-tf", archive], capture_output=True, text=True).stdout
    for source in (ROOT / "csrc").rglob("*.*"):
        assert str(source.relative_to(ROOT)) in listing
    assert "ganloss_fast/py.typed" in listing
    assert "ganloss_fast/_C.pyi" in listing
    assert "_build.json" not in listing
