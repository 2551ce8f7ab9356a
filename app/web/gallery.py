"""A GAN's latents as pictures to be marked, as HTML: each is a button that says how it is marked."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

from app.queue import paths
from app.web import labels
from app.web.html import empty, img
from erase.errors import BadInput

COUNT = 48  # latents on a page
TOLD = {"yes": "has it", "no": "has it not", "": "not marked"}


def latents(model: str, concept: str | None, first: int = 0) -> str:
    """The pictures of seeds `first` … `first` + COUNT - 1, those that have been drawn, with the marks of a concept."""
    folder = drawn(model)
    seeds = [seed for seed in range(first, first + COUNT) if folder and (folder / paths.latent_picture(seed)).is_file()]
    if folder is None or not seeds:
        return empty(
            "No latents drawn yet.",
            f"Press Draw: the GAN shows what it makes of seeds {first} to {first + COUNT - 1}. Then say which show the "
            "concept and which do not; eight of each are enough to erase it.",
        )
    told = labels.read(model, concept) if concept else {}
    cells = [_cell(folder, seed, next((side for side in told if seed in told[side]), "")) for seed in seeds]
    about = f'role="group" aria-label="latents to mark" data-concept="{escape(concept or "", quote=True)}"'
    return f'<div class="latents" {about}>{"".join(cells)}</div>'


def counted(model: str, concept: str | None) -> str:
    """How many seeds are marked, and what is still missing."""
    if not concept:
        return '<p class="note">Type the concept first. A click says <b>has it</b>, a second one <b>has it not</b>.</p>'
    told = labels.read(model, concept)
    missing = [
        f"{labels.LEAST - len(told[side])} more that {TOLD[side].replace('has', 'have')}"
        for side in labels.SIDES
               if len(told[side]) < labels.LEAST]  # fmt: skip
    rest = f"Needed: {' and '.join(missing)}." if missing else "Enough to erase from; more teach it better."
    return (
        f'<p class="note" role="status"><b class="yes">{len(told["yes"])} have it</b>, '
        f'<b class="no">{len(told["no"])} have it not</b>: {escape(concept.strip())}. {rest}</p>'
    )


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


def _cell(pictures: Path, seed: int, mark: str) -> str:
    label = f"seed {seed}, {TOLD[mark]}"
    return (
        f'<button type="button" data-seed="{seed}" data-mark="{mark}" aria-label="{label}">'
        f"{img(pictures / paths.latent_picture(seed), '', side=128)}</button>"
    )
