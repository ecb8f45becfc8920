"""Whole training loops on real data: ``python -m examples.lsgan --losses reference|fast``."""
