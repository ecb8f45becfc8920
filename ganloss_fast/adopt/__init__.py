"""``python -m ganloss_fast adopt PATH``: what a training script gains, as a diff.

A script is read as a concrete syntax tree (libcst), so that what is not rewritten keeps every space
and comment. What is certain to keep its numbers, the order of its draws and every name that is read
later is rewritten; everything else is left alone, and the reason is said.

From the ground up: :mod:`~ganloss_fast.adopt.syntax` is about nodes,
:mod:`~ganloss_fast.adopt.bindings` and :mod:`~ganloss_fast.adopt.names` about what names stand for,
:mod:`~ganloss_fast.adopt.effects` about what may draw or change something.
:mod:`~ganloss_fast.adopt.targets`, :mod:`~ganloss_fast.adopt.terms` and
:mod:`~ganloss_fast.adopt.sums` read a loss, :mod:`~ganloss_fast.adopt.roles` knows the critic and
the generator, :mod:`~ganloss_fast.adopt.losses` and :mod:`~ganloss_fast.adopt.detaching` say what
may be moved, dropped and detached. :mod:`~ganloss_fast.adopt.gradients` and
:mod:`~ganloss_fast.adopt.features` know penalties and feature-matching loops,
:mod:`~ganloss_fast.adopt.imports` and :mod:`~ganloss_fast.adopt.drop_ins` what codebases call their
losses. :mod:`~ganloss_fast.adopt.rewriter` walks over a script and fills its
:mod:`~ganloss_fast.adopt.edits`, :mod:`~ganloss_fast.adopt.unseen` says a word on the rest, and
:mod:`~ganloss_fast.adopt.script` puts it together.
"""
