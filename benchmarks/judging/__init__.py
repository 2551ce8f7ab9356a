"""The judge: draws, reads and compares an edited model with its base."""
