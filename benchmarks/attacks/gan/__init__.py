"""Attacks on GANs."""
