"""The table of mutants.toml, and the change of one line that each of its entries makes."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).with_name("mutants.toml")


@dataclass(frozen=True)
class Mutant:
    """One wrong line: what is wrong then, the file, the line without its indentation before and after, who notices."""

    what: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]

    def changed(self, source: str) -> str:
        """The source with the line exchanged; ValueError where it does not stand there exactly once."""
        lines = source.splitlines(keepends=True)
        places = [place for place, line in enumerate(lines) if line.strip() == self.before]
        if len(places) != 1:
            raise ValueError(f"{self.file} holds the line {self.before!r} {len(places)} times; it has to be once")
        lines[places[0]] = lines[places[0]].replace(self.before, self.after)
        return "".join(lines)


def mutants(path: Path = TABLE) -> list[Mutant]:
    """All entries of a table; TypeError for one with other keys."""
    entries = tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]
    return [Mutant(**{**entry, "tests": tuple(entry["tests"])}) for entry in entries]
