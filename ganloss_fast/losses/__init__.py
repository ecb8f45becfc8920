"""Adversarial losses and feature matching: what they are (``table``), and the calls over them."""
