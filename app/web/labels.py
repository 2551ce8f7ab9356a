"""What people say of a GAN's pictures: seeds that show a concept, and seeds that do not. Pictures are not kept here."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from filelock import FileLock

from app.queue import paths
from erase.errors import BadInput
from erase.files import make_folder, write_json

SIDES = ("yes", "no")
LEAST = 8  # of each side, below which adapt-unlearn refuses


def read(model: str, concept: str | None) -> dict[str, list[int]]:
    """The marks of a concept on a model: {"yes": [seeds], "no": [seeds]}."""
    path = _path(model, concept)
    told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {side: told.get(side, []) for side in SIDES}


def mark(model: str, concept: str, seed: int, what: str) -> dict[str, list[int]]:
    """Mark whether a seed shows a concept: yes, no, or neither (an empty text). Answers with all marks."""
    if what not in (*SIDES, ""):
        raise BadInput(f"{what!r} is not a mark; a seed is marked yes, no, or not at all.")
    path = _path(model, concept)
    make_folder(path.parent)
    with FileLock(path.with_suffix(".lock"), timeout=10):
        now = {side: [one for one in seeds if one != seed] for side, seeds in read(model, concept).items()}
        if what:
            now[what] = sorted([*now[what], seed])
        write_json(path, now)
    return now


def kept(model: str, concept: str | None) -> Path:
    """A copy of the marks as they are now, named by what it holds: what a run was made from cannot change later."""
    now = read(model, concept)
    path = _path(model, concept)
    copy = path.with_name(f"{path.stem}-{hashlib.sha256(json.dumps(now).encode()).hexdigest()[:12]}.json")
    write_json(copy, now)
    return copy


def _path(model: str, concept: str | None) -> Path:
    if not (concept and concept.strip()):
        raise BadInput("What are you marking? Type the concept first, for example eyeglasses.")
    return paths.home() / "marks" / paths.slug(model) / f"{paths.slug(concept)}.json"
