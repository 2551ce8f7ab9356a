"""What trained methods share: the loop, the deltas, the trained slices, and what they learn from."""
