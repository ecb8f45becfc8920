"""The kernel objects cannot leak instructions of one ISA into the rest of the process.

An inline function that is compiled for AVX-512 and left as a weak symbol may be the copy that
the linker keeps for everyone: an illegal instruction on other machines.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

KERNELS = Path(__file__).parent.parent / "csrc" / "cpu" / "kernels"
BUILT = KERNELS.parents[2] / "build"
ISA_FILES = sorted(KERNELS.glob("*.cpp"))
COMPILER = shutil.which("g++")
NM = shutil.which("nm")
OBJDUMP = shutil.which("objdump")

pytestmark = pytest.mark.skipif(not ISA_FILES, reason="the sources are not beside the tests")


def included_files(source: Path) -> set[Path]:
    """A source and every project file that it includes, directly or not."""
    found, waiting = set(), [source]
    while waiting:
        path = waiting.pop().resolve()
        if path not in found:
            found.add(path)
            names = re.findall(r'#include "([^"]+)"', path.read_text())
            waiting += [path.parent / name for name in names]
    return found


@pytest.mark.parametrize("source", ISA_FILES, ids=lambda path: path.stem)
def test_kernels_include_no_torch_and_no_cpp_library(source):
    allowed = {"stdint.h", "math.h", "immintrin.h"}
    for path in included_files(source):
        headers = set(re.findall(r"#include <([^>]+)>", path.read_text()))
        assert headers <= allowed, f"{path.name} includes {headers - allowed}"


@pytest.fixture(scope="module", params=ISA_FILES, ids=lambda path: path.stem)
def compiled(request, tmp_path_factory) -> tuple[str, Path]:
    """An instruction set, and its object: the one in the extension, if that is of this text."""
    source = request.param
    newest_text = max(path.stat().st_mtime for path in included_files(source))
    for objects in BUILT.glob(f"temp.*/csrc/cpu/kernels/{source.stem}.o"):
        if objects.stat().st_mtime > newest_text:
            return source.stem, objects
    objects = tmp_path_factory.mktemp(source.stem) / "kernels.o"
    flags = ["-O1", "-std=c++20", "-fPIC", "-Wno-psabi"]
    subprocess.run([COMPILER, *flags, "-c", str(source), "-o", str(objects)], check=True)
    return source.stem, objects


def printed(*command: object) -> str:
    return subprocess.run(map(str, command), check=True, capture_output=True, text=True).stdout


@pytest.mark.skipif(COMPILER is None or NM is None, reason="needs g++ and nm")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the ISA files are for x86-64")
def test_kernels_define_no_weak_symbols(compiled):
    symbols = printed(NM, "-C", compiled[1]).splitlines()
    assert any("Kernels" in line for line in symbols)
    weak = [line for line in symbols if re.search(r" [WVu] ", line)]
    assert not weak


@pytest.mark.skipif(COMPILER is None or OBJDUMP is None, reason="needs g++ and objdump")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the ISA files are for x86-64")
def test_half_precision_is_converted_by_the_processor(compiled):
    isa, objects = compiled
    instructions = printed(OBJDUMP, "-d", "--no-show-raw-insn", objects)
    for conversion in ("vcvtph2ps", "vcvtps2ph"):
        assert (conversion in instructions) == (isa != "base")
