"""What a method or an attack declares: its first sentence, paper, presets and knobs, known without importing torch.

Beside a folder of such files lies an index, declared.json, of what each declares. An entry holds the file's SHA-256: a
file that has changed since is imported, so an old index costs time and never tells anything wrong.
`python -m benchmarks.attacks.declare` writes both indexes anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from erase.files import sha256, write_json

INDEX = "declared.json"


@dataclass(frozen=True)
class Knob:
    """One setting of a method, for command lines, forms and documents."""

    name: str
    type: str  # "bool", "int", "float", "choice", "text", "list" or "bool or list"
    default: Any
    bounds: tuple[float | None, float | None]
    help: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Declaration:
    """What command lines, forms and documents say of a method; `needs` is None for an attack."""

    about: str
    paper: str
    needs: str | None
    presets: Mapping[str, Mapping[str, Any]]
    knobs: tuple[Knob, ...]


def declaration_of(kind: type, knobs: Callable[[type], list[Knob]]) -> Declaration:
    """What a class declares, as the index holds it: plain values, lists as tuples."""
    needs = getattr(kind, "needs", None)
    declared = Declaration(
        about=(kind.__doc__ or "").strip().split("\n")[0],
        paper=kind.paper,  # type: ignore[attr-defined]
        needs=needs.__name__.lower() if needs else None,
        presets=kind.presets,  # type: ignore[attr-defined]
        knobs=tuple(knobs(kind)),
    )
    return _read(json.loads(json.dumps(asdict(declared))))


def declared(file: Path) -> Declaration | None:
    """What the index beside a file says of it; None where there is none, or the file has changed since."""
    index = file.parent / INDEX
    entry = json.loads(index.read_text(encoding="utf-8")).get(file.stem) if index.is_file() else None
    return _read(entry["declared"]) if entry and entry["sha256"] == sha256(file) else None


def write(found: Mapping[Path, Declaration]) -> None:
    """Write the indexes of the folders in which these files are."""
    for folder in {file.parent for file in found}:
        write_json(
            folder / INDEX,
            {
                file.stem: {"sha256": sha256(file), "declared": asdict(each)}
                for file, each in sorted(found.items())
                if file.parent == folder
            },
        )


def _read(entry: Mapping[str, Any]) -> Declaration:
    whole = _tuples(entry)
    return Declaration(**{**whole, "knobs": tuple(Knob(**knob) for knob in whole["knobs"])})


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _tuples(part) for name, part in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
