"""Attacks: attempts to bring an erased concept back."""
