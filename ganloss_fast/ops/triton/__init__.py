"""The ops as Triton kernels: for GPUs where the extension has no kernels of its own.

One file for each op, with its kernels and its launchers. multi_tensor_loss has more: its kernels,
its ``statistics.py``, and how a list gets into a launch, ``segment_arguments.py`` on the host and
``segments.py`` in the kernel. ``terms.py`` holds the formulas of the terms; ``tiles.py``,
``rows.py`` and ``reduction.py`` what kernels share; ``checks.py`` and ``layout.py`` what launchers
share; ``launchers.py`` is the namespace of them all. Nothing here is imported before a tensor needs
it, so Triton is never a hard dependency.
"""
