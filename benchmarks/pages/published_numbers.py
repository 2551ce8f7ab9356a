"""Numbers that others have published, for comparison only: their hardware, samplers and prompts differ."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "published"


def published(name: str) -> dict[str, Any]:
    """A table by name: a note, and rows with the mean of their six accuracies."""
    table = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    for row in table["rows"]:
        row["mean"] = math.fsum([*row["style"], *row["object"]]) / 6
    return table
