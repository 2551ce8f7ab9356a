"""The erased model as one checkpoint under CompVis, Stability and OpenCLIP names: U-Net, VAE and text encoders."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from erase.edit import Edit
from erase.work import Step, Work
from generators.checkpoints import vocabulary
from generators.checkpoints.parts import Family
from generators.checkpoints.single_file import SUBFOLDERS, TOWERS, UNET, VAE
from generators.export import compvis_names, modelspec
from generators.export.format import Asked, Facts, Form, Place
from generators.export.formats.diffusers_folder import write_configs
from generators.export.published import WHY_NOT
from generators.export.staging import room

if TYPE_CHECKING:
    from generators.stable_diffusion.adapter import StableDiffusion

FILE = "model.safetensors"
State = Mapping[str, Tensor]


def layout(
    family: Family,
    unet: tuple[Mapping[str, Any], State],
    vae: tuple[Mapping[str, Any], State],
    texts: Sequence[State],
) -> dict[str, Tensor]:
    """Every tensor of a checkpoint by its published name; `unet` and `vae` are config and weights."""
    named = {UNET: compvis_names.unet(*unet), VAE: compvis_names.vae(*vae)}
    for (prefix, open_clip), text in zip(TOWERS[family], texts, strict=True):
        named[prefix] = compvis_names.open_clip(text) if open_clip else compvis_names.clip(text)
    return {prefix + name: tensor for prefix, part in named.items() for name, tensor in part.items()}


def _write(model: StableDiffusion, edit: Edit, folder: Path, asked: Asked) -> Work[Facts]:
    dtype = asked.dtype or model.dtype
    unet: Any = model.network.unet
    with edit.applied(model.network, asked.strength):
        states = [part.state_dict() for part in (unet, model.vae, *model.reading.texts)]
        room(folder, sum(tensor.numel() * dtype.itemsize for state in states for tensor in state.values()))
        named = layout(model.family, (unet.config, states[0]), (model.vae.config, states[1]), states[2:])
        # Copied while the edit is applied: the dictionaries above are views of the model's own weights.
        tensors = {name: tensor.detach().to("cpu", dtype, copy=True).contiguous() for name, tensor in named.items()}
        yield Step("write", 1, 2)
    header = modelspec.header(model, tensors, edit, adapter=None) | carried(model, dtype)
    save_file(tensors, folder / FILE, metadata={"format": "pt", **header})
    yield Step("write", 2, 2)
    return {}


def carried(model: StableDiffusion, dtype: torch.dtype) -> dict[str, str]:
    """Configs as metadata under their paths in a pipeline folder, from which our reader rebuilds the very model.

    Tokenizers only where they are not CLIP's own, which every program has.
    """
    known = all(len(tokenizer) == vocabulary.SIZE for tokenizer in model.reading.tokenizers)
    wanted = [part for part in SUBFOLDERS if not (known and part.startswith("tokenizer"))]
    with TemporaryDirectory() as home:
        write_configs(model, Path(home), dtype)
        files = [Path(home, "studio.json"), *(path for part in wanted for path in Path(home, part).glob("*.json"))]
        # vocab.json repeats what tokenizer.json says.
        texts = {path.relative_to(home).as_posix(): path.read_text("utf-8") for path in files if path.stem != "vocab"}
    return {name: json.dumps(json.loads(text), ensure_ascii=False) for name, text in texts.items()}


def _recipe(place: Place) -> str:
    kind = "StableDiffusionXLPipeline" if place.kind == "xl" else "StableDiffusionPipeline"
    v = (
        "\n\nThis model predicts v, which the weights do not say: in A1111 put a .yaml with `parameterization: v` "
        "beside the file; Forge and ComfyUI have a setting or node for v-prediction."
        if place.v_prediction and place.published
        else ""
    )
    others = "A1111, Forge, ComfyUI and InvokeAI: put the file into the folder of checkpoints."
    return (
        f"{others if place.published else WHY_NOT}\n\nWith diffusers, `config` is "
        "a local pipeline folder of the base model (without it, diffusers asks the network):\n\n"
        f"```python\nfrom diffusers import {kind}\n\n"
        f'pipe = {kind}.from_single_file("{place.path}", config="BASE/FOLDER", local_files_only=True)\n'
        f'image = pipe("{place.prompt}").images[0]\n```{v}'
    )


FORM = Form(
    about="one checkpoint with original keys and the edit merged in",
    opens="diffusers, this studio",
    programs="A1111, Forge, ComfyUI, InvokeAI, stable-diffusion.cpp",
    files={".safetensors": FILE},
    write=_write,
    recipe=_recipe,
)
