"""The benchmark: what this package gains on the machine it runs on.

``ganloss-bench``, or ``python -m ganloss_fast.bench``. It needs what
``pip install 'ganloss_fast[bench]'`` installs.
"""
