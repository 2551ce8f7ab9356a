"""Pocket Faces: procedural faces, their attributes, and their probe."""
