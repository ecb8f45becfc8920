"""The ops as Triton kernels: for GPUs where the extension has no kernels of its own.

``terms.py`` and ``penalty.py`` hold the formulas, ``multi_tensor_loss.py``, ``rows.py`` and
``perturb.py`` the kernels, ``launchers.py`` one function for each op, with the signature of its
schema. Nothing here is imported before a tensor needs it, so Triton is never a hard dependency.
"""
