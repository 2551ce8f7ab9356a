"""What an edit's provenance says: the single erasures it consists of, and what they have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

About = Mapping[str, Any]


def erasures(about: About) -> list[tuple[float, About]]:
    """The single erasures an edit consists of, each with the strength it enters with."""
    if "parents" not in about:
        return [(1.0, about)]
    return [
        (float(parent["strength"]) * strength, erasure)
        for parent in about["parents"]
        for strength, erasure in erasures(parent["about"])
    ]


def common(about: About, key: str) -> str | None:
    """What all erasures say about `key`, all of it if they disagree, None if they are silent."""
    values = {str(erasure[key]) for _, erasure in erasures(about) if erasure.get(key)}
    return ", ".join(sorted(values)) or None


def erased(about: About) -> list[str]:
    """The names of the concepts that are gone."""
    return [name for _, erasure in erasures(about) for name in names(erasure, "concepts")]


def names(erasure: About, key: str) -> list[str]:
    """The names of one erasure's `concepts` or `keep`."""
    return [str(each["name"]) if isinstance(each, Mapping) else str(each) for each in erasure.get(key, ())]
