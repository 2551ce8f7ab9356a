"""Attacks on diffusion models: one file each."""
