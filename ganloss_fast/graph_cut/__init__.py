"""What carries exact zeros in the graph of an input gradient, and how it is removed."""
