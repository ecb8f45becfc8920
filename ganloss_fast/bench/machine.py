"""What a recorded figure must say about where it was taken."""

from __future__ import annotations

import datetime
import platform
import subprocess
from pathlib import Path

import torch

from ganloss_fast import __version__, backends

REPOSITORY = Path(__file__).resolve().parents[2]  # where this is a checkout
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")  # of Linux


def cpu_model() -> str:
    """The processor's name, and the widest instruction set that torch uses on it."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


def git_revision() -> str:
    """The commit, marked when tracked files differ from it; "unknown" outside a clone.

    An installation may lie in a folder that is somebody else's clone.
    """
    if not (REPOSITORY / ".git").exists():
        return "unknown"
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        result = subprocess.run(
            command, cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return result.stdout.strip()


def backend(device: torch.device | str) -> str:
    """Whose kernels serve a tensor on the device: native, triton or reference."""
    tensor = torch.empty(0, device=device)
    if backends.is_native(tensor):
        return "native"
    return "triton" if backends.is_triton(tensor) else "reference"


def free_memory(device: torch.device) -> int | None:
    """Bytes that can be allocated; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = [_available(), *_left_of_the_group()]
    known = [each for each in found if each is not None]
    return min(known, default=None)


def _available() -> int | None:
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    lines = meminfo.read_text().splitlines()
    return next((int(x.split()[1]) * 1024 for x in lines if x.startswith("MemAvailable")), None)


def _left_of_the_group() -> list[int]:
    """Of the control group that a container is held to; what it caches of files can go."""
    most, now = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.stat"))
    if not most.exists() or not now.exists() or not most.read_text().strip().isdigit():
        return []
    held = (int(x.split()[1]) for x in now.read_text().splitlines() if x.startswith("anon "))
    return [int(most.read_text()) - next(held, 0)]


def last_level_cache(device: torch.device) -> int | None:
    """Bytes; None where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).L2_cache_size)
    sizes = [path.read_text().strip() for path in CACHES.glob("index*/size")]
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    known = [int(size[:-1]) * units[size[-1]] for size in sizes if size[-1:] in units]
    return max(known, default=None)


def facts(device: torch.device | str = "cpu") -> dict[str, str | int]:
    """Versions, processor, revision and date, for the JSON next to every result."""
    found: dict[str, str | int] = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "git_revision": git_revision(),
        "ganloss_fast": __version__,
        "backend": backend(device),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu": cpu_model(),
        "threads": torch.get_num_threads(),
    }
    if torch.device(device).type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found
