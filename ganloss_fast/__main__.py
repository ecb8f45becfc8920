"""``python -m ganloss_fast``: versions, what was built, and why each missing backend is missing.

``python -m ganloss_fast adopt PATH``: where a training script can use the package, as a diff.
"""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Sequence

import torch

import ganloss_fast
from ganloss_fast import backends, extension
from ganloss_fast.graph_cut.rows import ROWS, proven_row


def _built() -> str:
    binary = extension.BINARY
    if binary is None:
        return "pure Python"
    kernels = extension.FACTS.get("built", "unknown")
    return f"{kernels} for torch {extension.torch_of(binary) or '(it does not say which)'}"


def report() -> str:
    """The installation in a few lines, for people and for bug reports."""
    lines = [
        f"ganloss_fast {ganloss_fast.__version__}",
        f"python       {platform.python_version()} on {platform.machine()}",
        f"torch        {torch.__version__}, CUDA {torch.version.cuda or 'none'}, "
        f"{torch.get_num_threads()} threads",
        f"built        {_built()}",
    ]
    if backends.HAS_NATIVE:
        from ganloss_fast import _C

        lines.append(
            f"cpu kernels  {_C.cpu_isa()} (this processor runs "
            f"{', '.join(_C.available_cpu_isas())}), compiled by {_C.compiler}"
        )
    hold = sum(proven_row(row.node) is not None for row in ROWS)
    lines.append(f"graph cut    {hold} of {len(ROWS)} rows hold")
    lines.append("")
    for backend in backends.BACKENDS:
        for device in ("cpu", "cuda"):
            reason = backends.why_not(backend, device)
            answer = "yes" if reason is None else f"no: {reason}"
            lines.append(f"{backend:<10} {device:<5} {answer}")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    if not arguments:
        print(report())
        return 0
    if arguments[0] != "adopt":
        print(
            f"python -m ganloss_fast: expected nothing or adopt, got {arguments[0]}",
            file=sys.stderr,
        )
        return 2
    if importlib.util.find_spec("libcst") is None:
        print(
            "adopt reads scripts with libcst, which is missing: pip install libcst", file=sys.stderr
        )
        return 2
    from ganloss_fast.adopt import command

    return command.main(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
