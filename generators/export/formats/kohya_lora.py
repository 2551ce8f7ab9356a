"""The edit as a LoRA under kohya's names, which A1111, ComfyUI, InvokeAI and diffusers load beside a base model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from erase import provenance
from erase.edit import Edit, canonical
from erase.errors import BadInput
from erase.low_rank import Factors, factored
from erase.work import Work
from generators.checkpoints.text_encoder_edit import lora_header
from generators.export import low_rank, modelspec
from generators.export.compvis_names import unet_name
from generators.export.format import Asked, Facts, Place
from generators.export.published import WHY_NOT

if TYPE_CHECKING:
    from generators.export.format import Painter

FILE = "lora.safetensors"
PROJECTIONS = [f"self_attn.{which}_proj.weight" for which in ("q", "k", "v", "out")]
DEEP = 2  # InvokeAI knows an SDXL LoRA by a transformer block of this number or a later one


def module_name(parameter: str, model: Painter) -> str:
    """kohya's name of the layer a parameter belongs to; XL's U-Net is named as Stability does, others as diffusers."""
    tower, _, rest = parameter.partition(".")
    if tower == "transformer":
        return f"lora_unet_{flux_name(rest.removesuffix('.weight')).replace('.', '_')}"
    if tower == "unet":
        unet: Any = model.network.unet
        prefix, rest = "lora_unet", unet_name(rest, unet.config) if model.family == "xl" else rest
    else:
        prefix = {"text": "lora_te1" if model.family == "xl" else "lora_te", "text_2": "lora_te2"}[tower]
    return f"{prefix}_{rest.removesuffix('.weight').replace('.', '_')}"


# FLUX's layers as Black Forest Labs name them, where diffusers keeps them as one.
FLUX: Mapping[str, str] = {
    "context_embedder": "txt_in",
    "x_embedder": "img_in",
    "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
    "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
    "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
}
FLUX_BLOCK: Mapping[str, str] = {
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
    "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
}


def flux_name(layer: str) -> str:
    """A layer of FLUX's transformer under its published name; BadInput where several make one there."""
    if layer in FLUX:
        return FLUX[layer]
    found = re.fullmatch(r"transformer_blocks\.(\d+)\.(.+)", layer)
    if found and found[2] in FLUX_BLOCK:
        return f"double_blocks.{found[1]}.{FLUX_BLOCK[found[2]]}"
    raise BadInput(f"Other programs hold {layer} fused with its neighbours; export diffusers-lora, edit or pipeline.")


def _write(model: Painter, edit: Edit, folder: Path, asked: Asked) -> Work[Facts]:
    made = yield from low_rank.factors(edit, asked, leave_out=True)
    held = {**made.factors, **_silent(model, made.factors)}
    # One alpha for all layers, for diffusers loses track of different ones; loaders scale by alpha / rank of the layer.
    alpha = made.facts["ranks"][1]
    tensors: dict[str, Tensor] = {}
    for parameter, each in held.items():
        module = module_name(parameter, model)
        ones = (1,) * (each.down.ndim - 2)  # a convolution's second factor is 1×1
        tensors[f"{module}.lora_down.weight"] = each.down
        tensors[f"{module}.lora_up.weight"] = each.up.reshape(*each.up.shape, *ones) * (each.rank / alpha)
        tensors[f"{module}.alpha"] = torch.tensor(float(alpha), dtype=each.up.dtype)  # loaders call .item()
    comment = f"erased {', '.join(provenance.erased_names(edit.about))}; relative error {made.facts['error']:.2g}"
    header = modelspec.header(model, tensors, edit, adapter="lora")
    header |= modelspec.kohya(model, tensors, alpha, comment, asked.title)
    header |= lora_header(edit, {module_name(parameter, model): parameter for parameter in held})
    save_file(tensors, folder / FILE, metadata={"format": "pt", **header})
    return made.facts


def _silent(model: Painter, held: Mapping[str, Factors]) -> dict[str, Factors]:
    """Zero changes without which loaders do not recognise the file.

    Beside a text encoder's other layers diffusers needs `out_proj`, and A1111 passes over an attention of OpenCLIP
    unless all four of its projections are there. InvokeAI needs a deep block of XL.
    """
    parameters = {canonical(name): weight for name, weight in model.network.named_parameters()}
    layers = {found[1] for name in held if (found := re.match(r"(text.*\.layers\.\d+\.)", name)) is not None}
    wanted = {layer + projection for layer in layers for projection in PROJECTIONS}
    if model.family == "xl" and not any(_depth(name) >= DEEP for name in held):
        deep = [name for name in parameters if _depth(name) >= DEEP and name.endswith("attn2.to_k.weight")]
        wanted |= set(deep[:1])
    dtype = next(iter(held.values())).up.dtype
    return {
        name: factored(torch.zeros_like(parameters[name], device="cpu"), rank=1, dtype=dtype)
        for name in sorted(wanted - held.keys())
    }


def _depth(parameter: str) -> int:
    found = re.search(r"^unet.*transformer_blocks\.(\d+)\.", parameter)
    return int(found[1]) if found else -1


FLUX_WHY_NOT = "Other programs know FLUX.1 by its sizes. This model has others, so they do not open the file."


def _flux_recipe(place: Place) -> str:
    others = (
        "ComfyUI, Forge and sd-scripts: put the file into the folder of LoRAs and load it at weight 1 with the base "
        "model it was made for."
    )
    return (
        f"{others if place.published else FLUX_WHY_NOT} diffusers (needs peft) translates the names of outer layers, "
        "but loads them only with the word `transformer.` before them:\n\n```python\n"
        "from diffusers import DiffusionPipeline\n\n"
        f'pipe = DiffusionPipeline.from_pretrained("{place.base}")\n'
        f'state = pipe.lora_state_dict("{place.path}")\n'
        'pipe.load_lora_weights({"transformer." + name.removeprefix("transformer."): state[name] for name in state})\n'
        f"{place.drawing}\n```\n\n{REMOVABLE}"
    )


def _recipe(place: Place) -> str:
    if place.kind == "flux":
        return _flux_recipe(place)
    others = (
        "A1111, Forge, ComfyUI and InvokeAI: put the file into the folder of LoRAs and load it at weight 1 with the "
        f"base model it was made for.{SD2 if place.kind == 'sd2' else ''}"
    )
    return (
        f"{others if place.published else WHY_NOT}\n\nWith diffusers (needs peft):\n\n```python\n"
        "from diffusers import DiffusionPipeline\n\n"
        f'pipe = DiffusionPipeline.from_pretrained("{place.base}")\npipe.load_lora_weights("{place.path}")\n'
        f"{place.drawing}\n```\n\n{REMOVABLE}"
    )


SD2 = " stable-diffusion.cpp ignores what a LoRA changes in the queries, keys and values of SD 2's text encoder."
REMOVABLE = (
    "Anyone can remove this erasure by not loading the file; where that matters, distribute a merged model instead "
    "(`pipeline` or `single-file`)."
)

FORM = low_rank.lora(
    about="a LoRA under kohya's names",
    opens="diffusers, this studio",
    programs="A1111, Forge, ComfyUI, InvokeAI, stable-diffusion.cpp",
    files={".safetensors": FILE},
    write=_write,
    recipe=_recipe,
)
