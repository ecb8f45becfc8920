"""Installations in which the extension, Triton or a compiler is missing, in fresh processes.

Who serves a CUDA tensor in each of them is the subject of test_backend_selection.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import ganloss_fast
from ganloss_fast import backends

ROOT = Path(ganloss_fast.__file__).parents[1]


# ---- installations in which something is missing -----------------------------------------------


def run_python(code: str, path: Path, **environment: str) -> str:
    """Runs code in a fresh process against the package at `path`; returns what it printed."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        cwd=path,
        env={**os.environ, "PYTHONPATH": str(path), **environment},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.fixture(scope="session")
def without_extension(tmp_path_factory) -> Path:
    """The package as it installs where nothing can be compiled."""
    path = tmp_path_factory.mktemp("pure")
    ignored = shutil.ignore_patterns("_C*", "_build.json", "__pycache__")
    shutil.copytree(ROOT / "ganloss_fast", path / "ganloss_fast", ignore=ignored)
    return path


NO_TRITON = """
    import sys
    sys.modules["triton"] = None  # import triton: ModuleNotFoundError
"""

LOSS = """
    import torch, ganloss_fast
    from ganloss_fast import backends, ops
    real, fake = torch.randn(2, 3, requires_grad=True)
    loss = ganloss_fast.discriminator_loss(real, fake, "hinge")
    loss.backward()
    print(round(loss.item(), 4) == round((1 - real).relu().mean().item()
          + (1 + fake).relu().mean().item(), 4))
"""


def test_without_the_extension_the_cpu_takes_the_reference(without_extension):
    printed = run_python(
        LOSS + "    print(backends.HAS_NATIVE, backends.is_native(real), backends.is_triton(real))",
        without_extension,
        TRITON_INTERPRET="0",
    )
    assert printed.split() == ["True", "False", "False", "False"]


def test_without_the_extension_its_choice_is_refused_with_the_reason(without_extension):
    printed = run_python(
        """
        import ganloss_fast
        try:
            ganloss_fast.set_backend("native")
        except RuntimeError as error:
            print(error)
        """,
        without_extension,
    )
    assert "backend 'native' is not available: the extension is not built" in printed


@pytest.mark.parametrize("extension", [True, False])
def test_without_triton_everything_else_works(without_extension, extension):
    path = ROOT if extension else without_extension
    printed = run_python(
        NO_TRITON
        + LOSS
        + """
    assert not any(name.startswith("triton.") for name in sys.modules)
    print(backends.HAS_NATIVE, backends.REGISTERS_TRITON, backends.why_not("triton", "cuda"))
    try:
        ganloss_fast.set_backend("triton")
    except RuntimeError as error:
        print(error)
    """,
        path,
    ).splitlines()
    has_native = str(extension and backends.HAS_NATIVE)
    missing = "it is not installed (run: pip install triton)"
    assert printed[0] == "True"
    assert printed[1] == f"{has_native} False {missing}"
    assert printed[2] == f"backend 'triton' is not available: {missing}"


def test_importing_the_package_does_not_import_triton():
    printed = run_python(
        """
        import sys
        import torch
        before = set(sys.modules)
        import ganloss_fast
        print([name for name in set(sys.modules) - before if name.split(".")[0] == "triton"])
        """,
        ROOT,
    )
    assert printed == "[]"


def test_without_a_compiler_the_install_says_so(without_extension, tmp_path):
    """What setup.py writes where it finds no compiler is what users read."""
    shutil.copytree(without_extension, tmp_path / "package")
    reason = "no C++ compiler (g++) was found when it was installed"
    facts = f'{{"built": "none", "reasons": {{"native": "{reason}"}}, "torch": "any"}}'
    (tmp_path / "package" / "ganloss_fast" / "_build.json").write_text(facts)
    printed = run_python(
        LOSS + "    print(backends.why_not('native', 'cpu'))", tmp_path / "package"
    )
    assert printed.splitlines() == ["True", reason]
