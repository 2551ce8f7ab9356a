"""The book of an attack, attack.jsonl: a line about the job, then one line per decided row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from erase.errors import BadInput


class Book:
    """Rows that are decided, by their case; with a folder they are on disk the moment they are added.

    BadInput when the folder holds the book of another job. A line torn by a kill is dropped: its row is done again.
    """

    def __init__(self, folder: Path | None, job: Mapping[str, Any]) -> None:
        self.path = None if folder is None else folder / "attack.jsonl"
        self.job = dict(job)
        self.lines: dict[str, dict[str, Any]] = {}
        if self.path is not None and self.path.is_file():
            self._read(self.path)

    def add(self, line: Mapping[str, Any]) -> None:
        """Book one row."""
        self.lines[line["case"]] = dict(line)
        if self.path is None:
            return
        fresh = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            if fresh:
                file.write(json.dumps({"job": self.job}, ensure_ascii=False) + "\n")
            file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def _read(self, path: Path) -> None:
        whole = path.read_bytes()
        kept = whole[: whole.rfind(b"\n") + 1]
        if kept != whole:
            path.write_bytes(kept)
        if not kept:
            path.unlink()
            return
        try:
            head, *lines = [json.loads(line) for line in kept.splitlines()]
            before, booked = dict(head["job"]), {line["case"]: line for line in lines}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise BadInput(
                f"{path} is damaged; remove {path.parent} to attack anew, or choose another --out."
            ) from None
        differing = [name for name in {**before, **self.job} if before.get(name) != self.job.get(name)]
        if differing:
            name = differing[0]
            raise BadInput(
                f"{path.parent} holds another attack: its {name} was {before.get(name)!r}, now it is "
                f"{self.job.get(name)!r}. Choose another --out."
            )
        self.lines = booked
