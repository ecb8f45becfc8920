"""Penalties on a critic's gradient: what they ask of it, where it is taken, and how."""
