"""Probes: the classifiers that read pictures."""
