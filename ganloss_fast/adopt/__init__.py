"""``python -m ganloss_fast adopt PATH``: what a training script gains, as a diff.

A script is read as a concrete syntax tree (libcst), so that what is not rewritten keeps every space
and comment. What may be rewritten is rewritten only where value and gradient stay the same to
rounding; everything else is left alone, and the reason is said.

:mod:`~ganloss_fast.adopt.names` resolves what a name stands for, :mod:`~ganloss_fast.adopt.terms`
reads one term of a loss, :mod:`~ganloss_fast.adopt.sums` makes one call of a sum of terms,
:mod:`~ganloss_fast.adopt.gradients` and :mod:`~ganloss_fast.adopt.features` know penalties and
feature-matching loops, and :mod:`~ganloss_fast.adopt.script` puts a file together.
"""
