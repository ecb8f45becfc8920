"""Builds the native part of ganloss_fast: nothing, CPU kernels, or CPU and CUDA kernels.

    GANLOSS_FAST_BUILD=auto   what this machine can build (default)
    GANLOSS_FAST_BUILD=cpu    native CPU kernels; an error without a C++ compiler
    GANLOSS_FAST_BUILD=cuda   native CPU and CUDA kernels; an error without nvcc and a CUDA torch
    GANLOSS_FAST_BUILD=none   pure Python

Everything else about the package is in pyproject.toml.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup


def find_cuda_toolkit() -> None:
    """Sets CUDA_HOME where it is not set: nvcc says where its toolkit is.

    torch takes the folder above the nvcc on PATH, which is wrong where that is a wrapper script.
    """
    nvcc = shutil.which("nvcc")
    if "CUDA_HOME" in os.environ or nvcc is None:
        return
    run = subprocess.run([nvcc, "--dryrun", "x.cu"], capture_output=True, text=True, check=False)
    for line in run.stderr.splitlines():
        if line.startswith("#$ TOP="):
            os.environ["CUDA_HOME"] = str(Path(line.removeprefix("#$ TOP=")).resolve())


find_cuda_toolkit()  # before torch.utils.cpp_extension looks for it

try:  # an sdist and the metadata need no torch
    import torch
    from torch.utils import cpp_extension
    from torch.utils.cpp_extension import CUDA_HOME, BuildExtension, CppExtension, CUDAExtension
except ImportError:
    torch = None  # type: ignore[assignment]
    from setuptools.command.build_ext import build_ext as BuildExtension  # type: ignore[no-redef]

ROOT = Path(__file__).parent
MODES = ("auto", "cpu", "cuda", "none")

# What is compiled for unless TORCH_CUDA_ARCH_LIST says otherwise: Turing to Blackwell, of these
# what nvcc knows, and PTX of the last for what comes after. Never the GPU of the build machine: it
# may have none, or another one.
CUDA_ARCHITECTURES = ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")

NO_TORCH = """
ganloss_fast: there is no torch in this build environment, so nothing native can be built.
pip builds in an isolated environment by default. Install torch first, then run
    pip install --no-build-isolation .
or set GANLOSS_FAST_BUILD=none for the pure-Python package.
"""


def requested_mode() -> str:
    mode = os.environ.get("GANLOSS_FAST_BUILD", "auto")
    if mode not in MODES:
        sys.exit(f"GANLOSS_FAST_BUILD: expected one of {', '.join(MODES)}, got {mode!r}")
    return mode


def cpp_compiler() -> str | None:
    return shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")


def why_no_cuda() -> str | None:
    """The reason against CUDA kernels, or None. Never asks for a GPU: build boxes have none."""
    if torch.version.cuda is None:
        return "torch was built without CUDA"
    if not (ROOT / "csrc" / "cuda").is_dir():
        return "this version of ganloss_fast has no CUDA kernels"
    if CUDA_HOME is None or not (Path(CUDA_HOME) / "bin" / "nvcc").exists():
        return "no CUDA toolkit found (set CUDA_HOME)"
    return None


def cuda_architectures() -> str:
    """The value of TORCH_CUDA_ARCH_LIST: nvcc before 12.8 knows neither 10.0 nor 12.0."""
    nvcc = f"{CUDA_HOME}/bin/nvcc"
    known = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=True)
    names = known.stdout.split()
    kept = [a for a in CUDA_ARCHITECTURES if f"compute_{a.replace('.', '')}" in names]
    return ";".join(kept) + "+PTX"


def compiled_codes() -> list[str]:
    """What the GPU code is compiled to: sm_80 and the like, compute_120 for PTX."""
    flags = " ".join(cpp_extension._get_cuda_arch_flags())
    return re.findall(r"code=(\w+)", flags)


def build_plan() -> tuple[str, dict[str, str]]:
    """What to build ("cuda", "cpu" or "none") and, for each part left out, the reason."""
    mode = requested_mode()
    reasons: dict[str, str] = {}
    if mode == "none":
        reasons["native"] = "GANLOSS_FAST_BUILD=none when it was installed"
    elif cpp_compiler() is None:
        reasons["native"] = "no C++ compiler (g++) was found when it was installed"
    if mode == "cpu":
        reasons["cuda"] = "GANLOSS_FAST_BUILD=cpu when it was installed"
    else:
        reason = reasons.get("native") or why_no_cuda()
        if reason:
            reasons["cuda"] = reason
    if (mode in ("cpu", "cuda") and "native" in reasons) or (mode == "cuda" and "cuda" in reasons):
        reason = reasons.get("native") or reasons["cuda"]
        sys.exit(f"GANLOSS_FAST_BUILD={mode} cannot be honoured: {reason}")
    plan = "none" if "native" in reasons else "cpu" if "cuda" in reasons else "cuda"
    return plan, reasons


def nodes_are_intrusive() -> bool:
    """Whether autograd holds its nodes in an intrusive_ptr (torch 2.13) or a shared_ptr."""
    header = Path(torch.__file__).parent / "include/torch/csrc/autograd/variable.h"
    return "intrusive_ptr<Node>" in header.read_text()


def extensions() -> list[Extension]:
    if torch is None:
        # A placeholder: it makes setuptools run Build, which says what is missing.
        return [Extension("ganloss_fast._C", [])]
    sources = [
        *ROOT.glob("csrc/*.cpp"),
        *ROOT.glob("csrc/autograd/*.cpp"),
        *ROOT.glob("csrc/cpu/*.cpp"),
    ]
    # Without -fopenmp at::parallel_for is silently serial.
    flags = ["-O3", "-g0", "-std=c++20", "-fopenmp", "-fvisibility=hidden", "-Wall", "-Wno-psabi"]
    if nodes_are_intrusive():
        flags.append("-DGANLOSS_INTRUSIVE_NODES")
    kind, options = CppExtension, {"cxx": flags}
    if build_plan()[0] == "cuda":
        if "TORCH_CUDA_ARCH_LIST" not in os.environ:
            os.environ["TORCH_CUDA_ARCH_LIST"] = cuda_architectures()
        sources += [*ROOT.glob("csrc/cuda/*.cpp"), *ROOT.glob("csrc/cuda/*.cu")]
        kind = CUDAExtension
        options["nvcc"] = ["-O3", "-std=c++20", "-Xcompiler=-fvisibility=hidden", "--threads=2"]
    return [
        kind(
            "ganloss_fast._C",
            sorted(str(path.relative_to(ROOT)) for path in sources),
            extra_compile_args=options,
            extra_link_args=["-fopenmp"],
        )
    ]


class Build(BuildExtension):
    def run(self) -> None:
        if torch is None and requested_mode() != "none":
            sys.exit(NO_TORCH)
        plan, reasons = build_plan()
        print(f"ganloss_fast: building {plan}", *(f"; no {k}: {v}" for k, v in reasons.items()))
        facts: dict[str, object] = {"built": plan, "reasons": reasons}
        facts["torch"] = torch and torch.__version__
        if plan == "cuda":
            facts["gpu_code"] = compiled_codes()
        self.write_facts(facts)
        if plan == "none":
            self.extensions: list[Extension] = []
        super().run()

    def write_facts(self, facts: dict) -> None:
        """Facts lie beside the binary: they can be read without loading it."""
        package = ROOT if self.inplace or self.editable_mode else Path(self.build_lib)
        path = package / "ganloss_fast" / "_build.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(facts, indent=2) + "\n")


setup(ext_modules=extensions(), cmdclass={"build_ext": Build})
