"""Compiles the CUDA sources for the CPU: what every harness test starts from.

Builds are kept under ``build/harness``, named by a hash of their sources and flags, so an
unchanged source is compiled once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HARNESS = Path(__file__).parent
ROOT = HARNESS.parents[2]
CACHE = ROOT / "build" / "harness"
KERNELS = "csrc/cuda/kernels"
KERNEL_SOURCES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / KERNELS).glob("*.cu"))
OPS = [Path(source).stem for source in KERNEL_SOURCES]
HEADERS = {".h", ".cuh", ""}  # <cuda/atomic> has no suffix

SANITIZERS = {
    "plain": ["-O2"],
    "address": ["-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
    "thread": ["-O1", "-g1", "-fsanitize=thread"],
}


def cuda_root() -> Path | None:
    """The CUDA toolkit, also where the nvcc on PATH is a wrapper script: nvcc says where it is."""
    if home := os.environ.get("CUDA_HOME"):
        return Path(home)
    if (nvcc := shutil.which("nvcc")) is None:
        return None
    run = subprocess.run([nvcc, "--dryrun", "x.cu"], capture_output=True, text=True, check=False)
    for line in run.stderr.splitlines():
        if line.startswith("#$ TOP="):
            return Path(line.removeprefix("#$ TOP=")).resolve()
    return None


def cuda_headers() -> Path | None:
    """A folder with cuda_fp16.h: the toolkit's, or that of the CUDA runtime wheel."""
    candidates = [Path(sysconfig.get_path("purelib")) / "nvidia" / "cu13" / "include"]
    if (root := cuda_root()) is not None:
        candidates.insert(0, root / "include")
    for folder in candidates:
        if (folder / "cuda_fp16.h").exists():
            return folder
    return None


def why_no_harness() -> str | None:
    """The reason why kernels cannot be compiled for the CPU here, or None."""
    if shutil.which("g++") is None:
        return "no g++"
    if cuda_headers() is None:
        return "no CUDA headers (a toolkit, or the nvidia-cuda-runtime wheel)"
    return None


def _compile(source: Path, flags: list[str], includes: list[Path], target: Path) -> Path:
    language = ["-x", "c++"] if source.suffix == ".cu" else []
    command = ["g++", "-std=c++20", "-fno-strict-aliasing", "-w", *flags]
    command += [f"-I{folder}" for folder in includes]
    command += ["-isystem", str(cuda_headers()), *language, "-c", str(source), "-o", str(target)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{run.stderr}")
    return target


def _fingerprint(sources: list[Path], flags: list[str], root: Path) -> str:
    digest = hashlib.sha256(" ".join(flags).encode())
    found = [*(root / "csrc").rglob("*"), *HARNESS.rglob("*")]
    headers = [path for path in found if path.suffix in HEADERS and path.is_file()]
    for path in sorted([*headers, *sources]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def build(
    name: str,
    sources: list[Path],
    flags: list[str],
    link_flags: list[str],
    includes: list[Path] | None = None,
    root: Path = ROOT,
) -> Path:
    """Compiles ``sources`` with ``flags`` and links them to build/harness/<name>-<hash>.

    ``root`` holds the ``csrc`` that is compiled: the project's, or a changed copy of it.
    """
    folders = [HARNESS, *map(Path, includes or [])]
    key = [*flags, *link_flags, *(str(folder) for folder in folders if root != folder.parent)]
    target = CACHE / f"{name}-{_fingerprint(sources, key, root)}"
    if target.exists():
        return target
    # Of this process alone: another one may be building the same.
    objects = target.with_suffix(f".{os.getpid()}")
    objects.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(max_workers=2) as pool:
        compiled = list(
            pool.map(
                lambda source: _compile(source, flags, folders, objects / f"{source.name}.o"),
                sources,
            )
        )
    linked = objects / "linked"
    command = ["g++", *flags, *map(str, compiled), "-o", str(linked), *link_flags]
    subprocess.run(command, check=True, capture_output=True)
    linked.rename(target)
    shutil.rmtree(objects)
    return target


def build_check(op: str, sanitizer: str, root: Path = ROOT) -> Path:
    """The torch-free program check_<op>.cpp with the kernels of the op, under a sanitizer."""
    sources = [HARNESS / f"check_{op}.cpp", root / KERNELS / f"{op}.cu"]
    flags = SANITIZERS[sanitizer]
    return build(f"{op}_{sanitizer}", sources, flags, [], [root / "csrc"], root)


def build_traffic() -> Path:
    """The torch-free program check_traffic.cpp: accesses call its counters, not ThreadSanitizer's.

    Without the macro of ThreadSanitizer the harness does not speak to its runtime either.
    """
    sources = [HARNESS / "check_traffic.cpp", *(ROOT / path for path in KERNEL_SOURCES)]
    flags = ["-O0", "-fsanitize=thread", "-U__SANITIZE_THREAD__"]
    return build("traffic", sources, flags, ["-fno-sanitize=thread"], [ROOT / "csrc"])
