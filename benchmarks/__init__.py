"""The training demo (``benchmarks.train``) and the benchmark (``benchmarks.run``)."""
