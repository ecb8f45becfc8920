"""What a recorded figure must say about where it was taken."""

from __future__ import annotations

import datetime
import platform
import subprocess
from pathlib import Path

import torch

from ganloss_fast import __version__, backends

REPOSITORY = Path(__file__).resolve().parents[2]  # where this is a checkout


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
