"""Sentences that carry a concept, and everyday sentences that carry none."""
