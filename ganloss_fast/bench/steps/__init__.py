"""Whole training steps, each in three forms: as its codebase writes it; with one import changed to
``ganloss_fast.compat``; and with the lines of the step helpers besides.

The networks are small stand-ins of the same kind, so that where the arithmetic goes carries over,
and times only roughly. Learning rates are 0: every step starts from the same weights.
"""
