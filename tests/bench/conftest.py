"""What tests of the benchmark share."""

from __future__ import annotations

import pytest


@pytest.fixture
def no_copy(monkeypatch):
    """Nobody waits for the speed of a copy, which every run measures first."""
    bandwidth = pytest.importorskip("ganloss_fast.bench.bandwidth")
    monkeypatch.setattr(bandwidth, "of_a_copy", lambda device, clock: 10.0)
