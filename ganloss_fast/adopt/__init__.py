"""``python -m ganloss_fast adopt PATH``: what a training script gains, as a diff.

A script is read as a concrete syntax tree (libcst), so that what is not rewritten keeps every space
and comment. What is certain to keep its numbers, the order of its draws and every name that is read
later is rewritten; everything else is left alone, and the reason is said.

From the ground up: :mod:`~ganloss_fast.adopt.syntax` is about nodes,
:mod:`~ganloss_fast.adopt.bindings`, :mod:`~ganloss_fast.adopt.criteria` and
:mod:`~ganloss_fast.adopt.names` about what names stand for, :mod:`~ganloss_fast.adopt.effects` and
:mod:`~ganloss_fast.adopt.moving` about what may draw or change something and be moved past it.
:mod:`~ganloss_fast.adopt.targets`, :mod:`~ganloss_fast.adopt.terms` and
:mod:`~ganloss_fast.adopt.sums` read a loss, :mod:`~ganloss_fast.adopt.roles` knows the critic and
the generator, :mod:`~ganloss_fast.adopt.losses` and :mod:`~ganloss_fast.adopt.detaching` say what
may be moved, dropped and detached. :mod:`~ganloss_fast.adopt.gradients` and
:mod:`~ganloss_fast.adopt.norms` know penalties, :mod:`~ganloss_fast.adopt.features` loops of maps,
:mod:`~ganloss_fast.adopt.transforms` what belongs to a compiler,
:mod:`~ganloss_fast.adopt.imports` and :mod:`~ganloss_fast.adopt.drop_ins` what codebases call their
losses. :mod:`~ganloss_fast.adopt.rewriter` walks over a script and fills its
:mod:`~ganloss_fast.adopt.edits`, which :mod:`~ganloss_fast.adopt.carried` keeps the comments of;
:mod:`~ganloss_fast.adopt.unseen` says a word on the rest, :mod:`~ganloss_fast.adopt.our_import`
imports the package, and :mod:`~ganloss_fast.adopt.script` puts it together.
"""
