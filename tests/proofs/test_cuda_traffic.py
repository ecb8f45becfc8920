"""The bytes that the CUDA kernels move, counted access by access, against docs/GPU_BUDGET.md."""

from __future__ import annotations

import re
import subprocess
from typing import NamedTuple

import pytest
from harness import build

BUDGET = build.ROOT / "docs" / "GPU_BUDGET.md"

pytestmark = [
    pytest.mark.gpu_proof,
    pytest.mark.skipif(
        build.why_no_harness() is not None, reason=f"no harness: {build.why_no_harness()}"
    ),
]


class Traffic(NamedTuple):
    """What one call did: see tests/proofs/harness/check_traffic.cpp."""

    call: str
    dtype: str
    launches: str
    read: str  # bytes for an element
    written: str
    narrow: int  # bytes in all


@pytest.fixture(scope="module")
def measured() -> list[Traffic]:
    output = subprocess.run([build.build_traffic()], capture_output=True, text=True, check=True)
    fields = [line.split(";") for line in output.stdout.splitlines()]
    return [Traffic(*rest, int(narrow)) for *rest, narrow in fields]


def rows_of(measured: list[Traffic]) -> set[str]:
    """The rows of the table that these calls make."""
    of_call: dict[str, dict[str, Traffic]] = {}
    for traffic in measured:
        of_call.setdefault(traffic.call, {})[traffic.dtype] = traffic
    rows = set()
    for call, of_dtype in of_call.items():
        half, brain = of_dtype["float16"], of_dtype["bfloat16"]
        assert half._replace(dtype="bfloat16") == brain
        cells = [
            f"{t.read} + {t.written}" for t in (of_dtype["float32"], half, of_dtype["float64"])
        ]
        rows.add(" | ".join([f"| {call}", half.launches, *cells]) + " |")
    return rows


def test_launches_and_bytes_for_an_element_are_those_of_the_table(measured):
    table = set(re.findall(r"^\| [^|]+ \| \d \|(?: \d+ \+ \d+ \|){3}$", BUDGET.read_text(), re.M))
    rows = rows_of(measured)
    assert rows == table, "\n".join(["measured, and not in the table:", *sorted(rows - table)])


def test_every_access_is_16_bytes_wide(measured):
    """But for the three elements that every thread takes the center of the statistics from."""
    center_of_all_threads = 3 * (8 * 256 + 1) * 8
    for traffic in measured:
        most = center_of_all_threads if "statistics" in traffic.call else 0
        assert traffic.narrow <= most, traffic
