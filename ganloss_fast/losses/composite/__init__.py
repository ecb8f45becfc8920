"""Losses of several terms, as generators of images are trained with: one call for all of them."""
