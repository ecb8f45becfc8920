"""Whole trainings on real data: the steps of ``bench.steps``, a few hundred in a row, their forms
side by side from the same seeds."""
