"""Pocket Canvas: procedural pictures of objects in themes, their words, and their probe."""
