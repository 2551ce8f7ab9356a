"""Runs: folders, snapshots, resuming."""
