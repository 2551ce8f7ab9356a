"""Suites, probes, metrics, reports: what an erasure did, in numbers that never travel alone."""
