"""Training of the bundled models: `python -m generators.pocket.train`."""
