"""``python -m benchmarks``: ganloss-bench, with the workloads that need the checkout."""

from __future__ import annotations

import sys

from benchmarks.penalty_workloads import workloads
from ganloss_fast.bench import command
from ganloss_fast.bench.catalogue import WORKLOADS

if __name__ == "__main__":
    sys.exit(command.main(None, (*WORKLOADS, *workloads()), prog="python -m benchmarks"))
