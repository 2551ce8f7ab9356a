"""Carrying an erased model away: each exporter re-opens what it wrote and compares a picture."""
