"""``python -m benchmarks``: ganloss-bench, with the workloads that need the checkout."""

from __future__ import annotations

import sys

PROGRAM = "python -m benchmarks"
INTERRUPTED = 130


def main() -> int:
    try:  # the imports take seconds, too
        from benchmarks.penalty_workloads import workloads
        from ganloss_fast.bench import command
        from ganloss_fast.bench.catalogue import WORKLOADS

        return command.main(None, (*WORKLOADS, *workloads()), prog=PROGRAM)
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
