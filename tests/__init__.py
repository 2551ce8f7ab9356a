"""A package on purpose: an installed distribution may carry a top-level `tests`, and ours must win."""
