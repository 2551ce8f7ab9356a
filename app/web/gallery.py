"""A GAN's latents as pictures to be marked, as HTML: each is a button that says how it is marked."""

from __future__ import annotations

import json
from pathlib import Path

from app.queue import paths
from app.web import labels
from app.web.templates import render
from erase.errors import BadInput

COUNT = 48  # latents on a page
MEANING = {"yes": "has it", "no": "has it not", "": "not marked"}


def latents(model: str, concept: str | None, first: int = 0) -> str:
    """The pictures of seeds `first` … `first` + COUNT - 1, those that have been drawn, with the marks of a concept."""
    folder, last = drawn(model), first + COUNT - 1
    marks = labels.read(model, concept) if concept else {}
    files = {seed: folder / paths.latent_picture(seed) for seed in range(first, last + 1)} if folder else {}
    cells = []
    for seed, file in files.items():
        if file.is_file():
            mark = next((side for side in marks if seed in marks[side]), "")
            cells.append((seed, mark, MEANING[mark], file))
    return render("gallery.latents", cells, concept or "", first, last)


def counted(model: str, concept: str | None) -> str:
    """How many seeds are marked, and what is still missing."""
    if not concept:
        return render("gallery.no_concept")
    marks = labels.read(model, concept)
    missing = [
        f"{labels.LEAST - len(marks[side])} more that {MEANING[side].replace('has', 'have')}"
        for side in labels.SIDES
        if len(marks[side]) < labels.LEAST
    ]
    return render("gallery.counted", len(marks["yes"]), len(marks["no"]), concept.strip(), missing)


def folder(model: str) -> Path:
    """Where a model's latents are drawn."""
    return paths.home() / "latents" / paths.slug(model)


def drawn(model: str) -> Path | None:
    """The folder of the pictures that have been drawn last; None where there are none."""
    index = folder(model) / "index.json"
    if not index.is_file():
        return None
    name = json.loads(index.read_text(encoding="utf-8"))["pictures"]
    if not paths.NAME.fullmatch(name):
        raise BadInput(f"{index} names no folder of pictures; remove it and press Draw again.")
    return folder(model) / name
