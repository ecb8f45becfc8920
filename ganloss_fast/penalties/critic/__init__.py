"""Calls of somebody else's critic: its arguments, its modules, its gradient, slices of its batch."""
