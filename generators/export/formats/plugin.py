"""The erased text encoder alone, as a transformers folder to put into any pipeline of its family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import save_file

from erase.edit import Edit
from erase.work import Step, Work
from generators.checkpoints.text_encoder_edit import ABOUT
from generators.export.format import Asked, Facts, Form, Place
from generators.export.formats.diffusers_folder import config, nth, stored, write_json, write_tokenizer

if TYPE_CHECKING:
    from generators.stable_diffusion.adapter import StableDiffusion


def _refusal(edit: Edit, asked: Asked) -> str | None:
    outside = [name for name, delta in edit.deltas.items() if not name.startswith("text") and delta.any()]
    if outside:
        return (
            f"A text-encoder folder cannot hold the U-Net, and this edit changes {len(outside)} of its tensors, such "
            f"as {min(outside)}. Use pipeline, single-file or edit."
        )
    return None if edit.deltas else "There is no change of a text encoder to carry."


def _write(model: StableDiffusion, edit: Edit, folder: Path, asked: Asked) -> Work[Facts]:
    """One tower and its tokenizer fill the folder itself; XL's two lie in subfolders named as in a pipeline."""
    dtype, towers = asked.dtype or model.dtype, model.reading.texts
    with edit.applied(model.network, asked.strength):
        for place, (text, tokenizer) in enumerate(zip(towers, model.reading.tokenizers, strict=True)):
            home = folder / f"text_encoder{nth(place)}" if len(towers) == 2 else folder
            words = folder / f"tokenizer{nth(place)}" if len(towers) == 2 else folder
            home.mkdir(exist_ok=True)
            header = {"format": "pt", ABOUT: json.dumps(dict(edit.about), sort_keys=True)}
            save_file(stored("text_encoder", text, dtype), home / "model.safetensors", metadata=header)
            write_json(home / "config.json", config(text, dtype))
            write_tokenizer(tokenizer, words)
            yield Step("write", place + 1, len(towers))
    return {}


def _recipe(place: Place) -> str:
    if place.kind == "xl":
        load = (
            "from transformers import CLIPTextModel, CLIPTextModelWithProjection\n\n"
            f'first = CLIPTextModel.from_pretrained("{place.path}", subfolder="text_encoder")\n'
            f'second = CLIPTextModelWithProjection.from_pretrained("{place.path}", subfolder="text_encoder_2")\n'
            f'pipe = DiffusionPipeline.from_pretrained("{place.base}", text_encoder=first, text_encoder_2=second)\n'
        )
    else:
        load = (
            "from transformers import CLIPTextModel\n\n"
            f'text = CLIPTextModel.from_pretrained("{place.path}")\n'
            f'pipe = DiffusionPipeline.from_pretrained("{place.base}", text_encoder=text)\n'
        )
    return (
        f"```python\nfrom diffusers import DiffusionPipeline\n{load}"
        f'image = pipe("{place.prompt}").images[0]\n```\n\nIt also fits relatives of the base model that kept its text '
        "encoder; how well the erasure carries over to them is not guaranteed and should be measured."
    )


FORM = Form(
    about="the erased text encoder as a transformers folder",
    opens="transformers, any pipeline of the family",
    files={},
    adds=True,
    refusal=_refusal,
    write=_write,
    recipe=_recipe,
)
