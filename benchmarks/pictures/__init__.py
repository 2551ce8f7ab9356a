"""Grids, contact sheets and plots."""
