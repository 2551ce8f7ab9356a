"""Scripts that run in a clean process; they never import this package."""
