"""Builds the native part of ganloss_fast: nothing, CPU kernels, or CPU and CUDA kernels.

    GANLOSS_FAST_BUILD=auto   what this machine can build (default)
    GANLOSS_FAST_BUILD=cpu    native CPU kernels; an error without a C++ compiler
    GANLOSS_FAST_BUILD=cuda   native CPU and CUDA kernels; an error without nvcc and a CUDA torch
    GANLOSS_FAST_BUILD=none   pure Python

Without a torch to compile for, as in pip's isolated build environment, auto builds the pure-Python
package, which says at its first use how to get the kernels.

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
from setuptools.command.build import build
from setuptools.command.build_py import build_py


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

try:  # an sdist, the metadata and the pure-Python package need no torch
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
    version = subprocess.run([f"{CUDA_HOME}/bin/nvcc", "--version"], capture_output=True, text=True)
    release = re.search(r"release (\d+)\.", version.stdout)
    if release and release.group(1) != torch.version.cuda.split(".")[0]:
        # torch's own build would stop here
        return f"torch is for CUDA {torch.version.cuda} and nvcc is of CUDA {release.group(1)}"
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
    return re.findall(r",code=(\w+)", flags)  # of -gencode=arch=compute_80,code=sm_80


def why_no_native() -> str | None:
    """The reason against native kernels, or None."""
    if requested_mode() == "none":
        return "GANLOSS_FAST_BUILD=none when it was installed"
    if sys.platform != "linux":
        return "the native kernels are for Linux"
    if torch is None:
        return "there was no torch to compile for where it was built"  # known to extension.py
    if cpp_compiler() is None:
        return "no C++ compiler (g++) was found when it was installed"
    return None


def build_plan() -> tuple[str, dict[str, str]]:
    """What to build ("cuda", "cpu" or "none") and, for each part left out, the reason."""
    if reason := why_no_native():
        return "none", {"native": reason, "cuda": reason}
    if requested_mode() == "cpu":
        return "cpu", {"cuda": "GANLOSS_FAST_BUILD=cpu when it was installed"}
    if reason := why_no_cuda():
        return "cpu", {"cuda": reason}
    return "cuda", {}


def refuse_less_than_requested(plan: str, reasons: dict[str, str]) -> None:
    """Exits where an explicit cpu or cuda cannot be had."""
    mode = requested_mode()
    if mode in ("auto", plan):
        return
    hint = ""
    if torch is None:
        hint = (
            "\npip builds in an environment of its own, without torch. Install torch first, then "
            "run\n    pip install --no-build-isolation ."
        )
    reason = reasons.get("native") or reasons["cuda"]
    sys.exit(f"GANLOSS_FAST_BUILD={mode} cannot be honoured: {reason}{hint}")


def nodes_are_intrusive() -> bool:
    """Whether autograd holds its nodes in an intrusive_ptr (torch 2.13) or a shared_ptr."""
    header = Path(torch.__file__).parent / "include/torch/csrc/autograd/variable.h"
    return "intrusive_ptr<Node>" in header.read_text()


def extensions() -> list[Extension]:
    plan, _ = build_plan()
    if plan == "none":
        return []
    csrc = ROOT / "csrc"
    cuda = csrc / "cuda"
    sources = [path for path in csrc.rglob("*.cpp") if cuda not in path.parents]
    # In every command, so that ninja compiles everything anew for another torch.
    for_torch = f"-DGANLOSS_FAST_TORCH={torch.__version__}"
    # Without -fopenmp at::parallel_for is silently serial.
    flags = ["-O3", "-g0", "-std=c++20", "-fopenmp", "-fvisibility=hidden", "-Wall", "-Wno-psabi"]
    if nodes_are_intrusive():
        flags.append("-DGANLOSS_INTRUSIVE_NODES")
    kind, options = CppExtension, {"cxx": [*flags, for_torch]}
    if plan == "cuda":
        if "TORCH_CUDA_ARCH_LIST" not in os.environ:
            os.environ["TORCH_CUDA_ARCH_LIST"] = cuda_architectures()
        sources += [*cuda.rglob("*.cpp"), *cuda.rglob("*.cu")]
        kind = CUDAExtension
        nvcc_flags = ["-O3", "-std=c++20", "-Xcompiler=-fvisibility=hidden", "--threads=2"]
        options["nvcc"] = [*nvcc_flags, for_torch]
    return [
        kind(
            "ganloss_fast._C",
            sorted(str(path.relative_to(ROOT)) for path in sources),
            extra_compile_args=options,
            extra_link_args=["-fopenmp"],
        )
    ]


def write_facts(folder: Path) -> None:
    """What was built and why not more, beside the binary: read without loading it."""
    plan, reasons = build_plan()
    refuse_less_than_requested(plan, reasons)
    print(f"ganloss_fast: building {plan}", *(f"; no {k}: {v}" for k, v in reasons.items()))
    facts = {"requested": requested_mode(), "built": plan, "reasons": reasons}
    if plan == "cuda":
        facts["gpu_code"] = compiled_codes()
    path = folder / "ganloss_fast" / "_build.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts, indent=2) + "\n")


class Build(build):
    """Starts from nothing: setuptools installs whatever an earlier build left in its folders."""

    def run(self) -> None:
        shutil.rmtree(Path(self.build_lib, "ganloss_fast"), ignore_errors=True)
        shutil.rmtree(Path(self.build_temp, "csrc"), ignore_errors=True)  # the object files
        super().run()


class BuildPython(build_py):
    def run(self) -> None:
        write_facts(ROOT if self.editable_mode else Path(self.build_lib))
        super().run()


class BuildBinary(BuildExtension):
    def finalize_options(self) -> None:
        super().finalize_options()
        # By its dates, setuptools takes a binary for another torch, or other headers, as fresh.
        # With ninja this leaves the choice to ninja.
        self.force = True

    def run(self) -> None:
        if self.inplace:  # without it, build_py has run
            write_facts(ROOT)
        super().run()


setup(
    ext_modules=extensions(),
    cmdclass={"build": Build, "build_py": BuildPython, "build_ext": BuildBinary},
)
