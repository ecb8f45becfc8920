"""What compiled CUDA kernels consist of: registers, spills, and memory instructions by width.

Reads the machine code in an object file with cuobjdump. No GPU and no driver are needed.
"""

from __future__ import annotations

import functools
import importlib.util
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)([^;]*);")
REGISTER = re.compile(r"\bR\d+\b")
DOUBLE = re.compile(r"(DADD|DMUL|DFMA|DSETP|DMNMX)\b|MUFU\.\w+64H")


@dataclass
class Kernel:
    architecture: str
    name: str  # with its template arguments
    registers: int
    stack_bytes: int
    code: list[tuple[str, str]] = field(default_factory=list)  # full names and what they work on

    @functools.cached_property
    def instructions(self) -> Counter:  # full names, LDG.E.128 and the like
        return Counter(name for name, _ in self.code)

    @property
    def compute_type(self) -> str:
        return self.name.partition("<")[2].partition(",")[0].rstrip(">")

    def count(self, operation: str, width: str = "") -> int:
        return sum(
            n
            for name, n in self.instructions.items()
            if name.split(".")[0] == operation and (not width or f".{width}" in name)
        )

    def requested_at_once(self, load: str) -> int:
        """The most loads of that full name that are under way before the first of them is used."""
        most = 0
        under_way: set[str] = set()
        for name, operands in self.code:
            registers = REGISTER.findall(operands)
            if name == load:
                under_way.add(registers[0])
                most = max(most, len(under_way))
            elif not under_way.isdisjoint(registers):
                under_way = set()
        return most

    def double_arithmetic(self) -> int:
        return sum(n for name, n in self.instructions.items() if DOUBLE.match(name))


def find_cuobjdump() -> str | None:
    """cuobjdump on PATH, of the toolkit wheels, or the copy that Triton ships."""
    if found := shutil.which("cuobjdump"):
        return found
    for module, relative in (
        ("nvidia", "cu13/bin/cuobjdump"),
        ("triton", "backends/nvidia/bin/cuobjdump"),
    ):
        spec = importlib.util.find_spec(module)
        for folder in (spec and spec.submodule_search_locations) or ():
            if (path := Path(folder) / relative).exists():
                return str(path)
    return None


def _lines(*command: str) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def _demangle(symbol: str) -> str:
    (name,) = _lines("c++filt", symbol)
    name = name.replace("ganloss::cuda::", "").removeprefix("void ")
    name = re.sub(r" ?>\(.*", ">", name)
    # Every argument has the compute type of the kernel: it is said once, and of a list its bytes.
    return re.sub(r"\w+<\w+<\w+>, (\d+)>|(?<=, )(\w+)<\w+>", r"\1\2", name)


def kernels_of(path: Path) -> list[Kernel]:
    """All kernels of an object file or shared library, for every architecture in it."""
    tool = find_cuobjdump()
    assert tool is not None
    kernels: dict[tuple[str, str], Kernel] = {}
    architecture = symbol = ""
    for line in _lines(tool, "--dump-resource-usage", str(path)):
        if match := re.search(r"arch = (sm_\w+)", line):
            architecture = match[1]
        elif match := re.search(r"Function (\S+):", line):
            symbol = match[1]
        elif "REG:" in line and symbol:
            numbers = dict(re.findall(r"(REG|STACK):(\d+)", line))
            kernels[architecture, symbol] = Kernel(
                architecture, _demangle(symbol), int(numbers["REG"]), int(numbers["STACK"])
            )
    current = None
    for line in _lines(tool, "-sass", str(path)):
        if match := re.search(r"arch = (sm_\w+)", line):
            architecture = match[1]
        elif match := re.search(r"Function : (\S+)", line):
            current = kernels.get((architecture, match[1]))
        elif current is not None and (match := INSTRUCTION.search(line)):
            current.code.append((match[1], match[2]))
    return list(kernels.values())
