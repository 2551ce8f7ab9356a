"""The edit as a LoRA under PEFT's names, for `load_lora_weights` of diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import save_file
from torch import Tensor

from erase.edit import Edit
from erase.work import Work
from generators.checkpoints.text_encoder_edit import lora_header
from generators.export import low_rank, modelspec
from generators.export.format import Asked, Facts, Place
from generators.export.formats.kohya_lora import REMOVABLE

if TYPE_CHECKING:
    from generators.export.format import Painter

FILE = "pytorch_lora_weights.safetensors"  # the name diffusers looks for in a folder
TOWERS = {"unet": "unet", "transformer": "transformer", "text": "text_encoder", "text_2": "text_encoder_2"}


def module_name(parameter: str) -> str:
    """A parameter's layer as a pipeline names it."""
    tower, _, rest = parameter.removesuffix(".weight").partition(".")
    return f"{TOWERS[tower]}.{rest}"


def _write(model: Painter, edit: Edit, folder: Path, asked: Asked) -> Work[Facts]:
    made = yield from low_rank.factors(edit, asked, leave_out=True)
    # The names have no place for alpha: a reader takes one rank for all layers of a file and scales by it.
    rank = made.facts["ranks"][1]
    tensors: dict[str, Tensor] = {}
    for parameter, each in made.factors.items():
        module, each = module_name(parameter), each.padded(rank)
        ones = (1,) * (each.down.ndim - 2)
        tensors[f"{module}.lora_A.weight"] = each.down
        tensors[f"{module}.lora_B.weight"] = each.up.reshape(*each.up.shape, *ones)
    header = modelspec.header(model, tensors, edit, adapter="lora")
    header |= lora_header(edit, {module_name(parameter): parameter for parameter in made.factors})
    save_file(tensors, folder / FILE, metadata={"format": "pt", **header})
    return {**made.facts, "ranks": [rank, rank]}


def _recipe(place: Place) -> str:
    return (
        "This file is for diffusers with peft, and not for other programs. ComfyUI drops its U-Net and "
        "stable-diffusion.cpp its text encoder; both then draw another picture without a word. For them export "
        "`kohya-lora`.\n\n"
        "```python\nfrom diffusers import DiffusionPipeline\n\n"
        f'pipe = DiffusionPipeline.from_pretrained("{place.base}")\npipe.load_lora_weights("{place.path}")\n'
        f"{place.drawing}\n```\n\n{REMOVABLE}"
    )


FORM = low_rank.lora(
    about="a LoRA under PEFT's names",
    opens="diffusers, PEFT, this studio",
    files={".safetensors": FILE},
    write=_write,
    recipe=_recipe,
)
