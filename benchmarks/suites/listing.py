"""The suites that come with the program, as their files say, read without waiting for torch."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

SUITES = Path(__file__).parent


def suite_names() -> list[str]:
    """The suites that come with the program."""
    return sorted(path.stem for path in SUITES.glob("*.toml"))


def suite_lines() -> list[dict[str, Any]]:
    """Name, version, what is drawn, styles and objects of each."""
    keys = {"name": "", "version": 1, "about": "", "styles": (), "objects": ()}
    tables = [tomllib.loads((SUITES / f"{name}.toml").read_text(encoding="utf-8")) for name in suite_names()]
    return [{key: table.get(key, default) for key, default in keys.items()} for table in tables]
