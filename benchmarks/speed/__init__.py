"""Cost of our loops beside the published ones; nothing may import these."""
