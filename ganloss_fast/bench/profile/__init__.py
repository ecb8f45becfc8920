"""Where the time, the FLOPs and the memory of a training step go, and what of it is thrown away."""
