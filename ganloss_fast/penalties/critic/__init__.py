"""Calls of somebody else's critic: arguments, modules, gradients, slices of its batch."""
