"""The benchmark: ``benchmarks.run`` on a CPU, ``benchmarks.gpu_session`` on a GPU."""
