"""The edit itself: its exact deltas, or products of thin matrices at a stated error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import save_file

from erase.edit import COMPRESSED, Edit
from erase.low_rank import DOWN, UP
from erase.work import Step, Work
from generators.export import low_rank
from generators.export.format import Asked, Facts, Form, Place

if TYPE_CHECKING:
    from generators.export.format import Model

FILE = "edit.safetensors"
WEAR = Path(__file__).parents[1] / "standalone" / "apply_edit.py"


def _write(model: Model, edit: Edit, folder: Path, asked: Asked) -> Work[Facts]:
    if not asked.compressed:
        cast = {name: delta.to("cpu", asked.dtype or delta.dtype) for name, delta in edit.deltas.items()}
        Edit(cast, edit.about).save(folder / FILE)
        yield Step("write", 1, 1)
        return {}
    made = yield from low_rank.factors(edit, asked, leave_out=False)
    products = {f"{name}{UP}": each.up for name, each in made.factors.items()}
    products |= {f"{name}{DOWN}": each.down for name, each in made.factors.items()}
    header = {"edit": json.dumps({"format": COMPRESSED, "about": dict(edit.about)}, sort_keys=True)}
    save_file({**products, **made.whole}, folder / FILE, metadata=header)
    return made.facts


def _recipe(place: Place) -> str:
    if place.kind == "gan":
        return (
            f"With the studio: `studio sample {place.path} --seeds 0:8 --out pictures.png`, or in Python:\n\n"
            f'```python\nfrom erase.edit import Edit\nfrom generators import load\n\nmodel = load("{place.base}")\n'
            f'with Edit.load("{place.path}").applied(model.network):\n'
            "    images = model.synthesis(model.mapping(z))\n```"
        )
    return (
        f'With the studio: `studio sample {place.path} --prompt "{place.prompt}" --out picture.png`. Without it, this '
        f"is all it takes:\n\n```python\nfrom diffusers import DiffusionPipeline\n\npipe = "
        f'DiffusionPipeline.from_pretrained("{place.base}")\n\n{snippet()}\n\nwear(pipe, "{place.path}")\n'
        f"{place.drawing}\n```"
    )


def snippet() -> str:
    """The loader that is printed in cards: the very code with which exports are proven."""
    return WEAR.read_text(encoding="utf-8").partition('"""\n\n')[2].strip()


FORM = Form(
    about="the weight changes alone: exact, or compressed with --error, --rank or --size",
    opens="this studio; a loader of a few lines is in the card",
    files={".safetensors": FILE},
    adds=True,
    options=("error", "rank", "size"),
    approximates=lambda asked: asked.compressed,
    refusal=lambda edit, asked: None if edit.deltas else "There is no change to carry.",
    write=_write,
    recipe=_recipe,
)
