"""The training demo (``python -m benchmarks.train``) and the benchmark (``python -m benchmarks.run``)."""
