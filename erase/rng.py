"""Random streams: one for each purpose, all from one seed."""

from __future__ import annotations

import hashlib

import torch


def stream(seed: int, *purpose: str | int) -> torch.Generator:
    """The random stream of one purpose, for example `stream(seed, "esd", "batch", step)`.

    It depends on nothing drawn before, so a resumed run needs only its step number.
    """
    return torch.Generator("cpu").manual_seed(number(seed, *purpose))


def number(seed: int, *purpose: str | int) -> int:
    """A 63-bit number that is the same for the same seed and purpose on every machine."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
