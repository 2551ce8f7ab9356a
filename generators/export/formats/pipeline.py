"""The erased model as a diffusers folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from erase.edit import Edit
from erase.work import Work
from generators.export.export import Exported, export
from generators.export.format import Asked, Facts, Form, Place

if TYPE_CHECKING:
    from generators.export.format import Painter


def _write(model: Painter, edit: Edit, folder: Path, asked: Asked) -> Work[Facts]:
    with edit.applied(model.network, asked.strength):
        yield from model.write(folder, dtype=asked.dtype, variant=asked.variant)
    return {}


def export_pipeline(
    model: Painter, edit: Edit | None, folder: str | Path, *, strength: float = 1.0, force: bool = False
) -> Work[Exported]:
    """`export` in this format, with its defaults."""
    return export(model, edit, folder, "pipeline", strength=strength, force=force)


def _recipe(place: Place) -> str:
    variant = f", variant={place.variant!r}" if place.variant else ""
    return (
        "```python\nfrom diffusers import DiffusionPipeline\n\n"
        f'pipe = DiffusionPipeline.from_pretrained("{place.path}"{variant})\n'
        f"{place.drawing}\n```"
    )


FORM = Form(
    about="a diffusers folder with the edit merged in",
    opens="diffusers, this studio",
    files={},
    options=("variant",),
    write=_write,
    recipe=_recipe,
)
