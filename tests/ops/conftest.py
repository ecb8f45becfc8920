"""Fixtures of the tests of Triton kernels in its interpreter."""

from __future__ import annotations

import pytest


@pytest.fixture
def under_guard():
    """What every kernel of a test runs under: see triton_interpreted.py."""
    from triton_interpreted import triton_under_guard

    with triton_under_guard():
        yield


@pytest.fixture
def small_blocks(monkeypatch):
    """16 elements to a tile and at most 4 programs to a sum."""
    from triton_interpreted import set_block

    set_block(monkeypatch, 16, 4)
