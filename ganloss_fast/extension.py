"""The native extension: looked at before it is loaded, and what to do where it is missing.

A binary belongs to the torch that it was compiled for: C++ symbols and layouts differ between
releases, and loading it beside another can crash the process. So the release stands in the
binary (csrc/torch_version.cpp) and is read from the bytes of the file first.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.metadata
import json
import mmap
import re
import shlex
import sys
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import torch

_FOLDER = Path(__file__).parent
_TORCH = re.compile(rb"GANLOSS_FAST_TORCH=([\w.+\-]+)\0")

# What setup.py says where it had no torch to compile for, as in pip's isolated environment.
BUILT_WITHOUT_TORCH = "there was no torch to compile for where it was built"


def _build_facts() -> dict[str, Any]:
    path = _FOLDER / "_build.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _binary() -> Path | None:
    """The extension for this Python, if it was built."""
    candidates = [_FOLDER / f"_C{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES]
    return next((path for path in candidates if path.exists()), None)


def torch_of(binary: Path) -> str | None:
    """The release that a binary was compiled for; None if it does not say."""
    with binary.open("rb") as file:
        if binary.stat().st_size == 0:
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found = _TORCH.search(content)
            return found.group(1).decode() if found else None


def _source() -> str:
    """The package's sources as pip takes them: a folder, a URL, or its name."""
    checkout = _FOLDER.parent
    if (checkout / "setup.py").exists():
        return f"--editable {shlex.quote(str(checkout))}"
    try:
        text = importlib.metadata.distribution("ganloss_fast").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        text = None
    if text is None:
        return "ganloss_fast"
    record = json.loads(text)
    url = record["url"]
    if "vcs_info" in record:
        vcs = record["vcs_info"]
        return shlex.quote(f"{vcs['vcs']}+{url}@{vcs['commit_id']}")
    path = urllib.request.url2pathname(urllib.parse.urlparse(url).path)
    if url.endswith(".whl") or (url.startswith("file:") and not Path(path).exists()):
        return "FOLDER_OF_THE_SOURCES"
    return shlex.quote(path if url.startswith("file:") else url)


def how_to_build() -> str:
    """The commands that lead to the native kernels.

    pip keeps wheels that it built, and would serve the one without kernels again: hence
    --no-cache-dir and --no-binary. --no-deps, so that it leaves torch alone.
    """
    pip = f"    {shlex.quote(sys.executable)} -m pip install"
    return (
        f"{pip} 'setuptools>=77,<82' ninja\n"
        f"{pip} --no-build-isolation --no-deps --no-cache-dir --force-reinstall "
        f"--no-binary ganloss_fast {_source()}"
    )


def _why_not_to_load(binary: Path) -> str | None:
    compiled_for = torch_of(binary)
    if compiled_for != torch.__version__:
        return (
            f"it was built for torch {compiled_for or '(it does not say which)'} and this is "
            f"{torch.__version__} (reinstall ganloss_fast)"
        )
    return None


def _load() -> tuple[str | None, str | None]:
    """Imports the extension, which registers the ops. Returns why it is not there, or None, and
    a warning for the import where it is there and cannot be used."""
    reason = FACTS.get("reasons", {}).get("native")
    if reason is not None:
        return reason, None
    if BINARY is not None:
        reason = _why_not_to_load(BINARY)
    elif others := sorted(path.name for path in _FOLDER.glob("_C.*so")):
        reason = f"it was built for another Python ({others[0]}; reinstall ganloss_fast)"
    else:
        return "the extension is not built (run: pip install --no-build-isolation .)", None
    if reason is None:
        try:
            importlib.import_module("ganloss_fast._C")
            return None, None
        except (ImportError, OSError) as error:
            reason = f"it does not load: {error}"
    return reason, (
        f"ganloss_fast: the native kernels are not used: {reason}. Everything works, more slowly, "
        f"in Triton or plain PyTorch. To build them for this torch:\n{how_to_build()}"
    )


FACTS = _build_facts()
BINARY = _binary()
MISSING, REFUSAL = _load()

# Said at the first use, once. Who asked for the pure-Python package, or has no compiler, or a
# system that the kernels are not for, is not told again and again what he knows.
ADVICE = (
    "ganloss_fast: this is the pure-Python package, because pip built it in an environment "
    "without torch. Everything works, more slowly on the CPU. The native kernels come with:\n"
    + how_to_build()
    if MISSING == BUILT_WITHOUT_TORCH and sys.platform == "linux"
    else None
)
