"""One backward for several losses of a reconstruction, weighed by the norms of their gradients."""
