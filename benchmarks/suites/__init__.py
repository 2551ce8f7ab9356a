"""Suites: what is drawn, with which prompts, and what it is scored against."""
