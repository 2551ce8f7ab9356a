"""What CompVis, Stability and OpenCLIP call the weights of a diffusers pipeline; derived from its config throughout."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from erase.edit import canonical

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
OUTSIDE = {
    "conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0", "conv_out": "out.2", "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}  # fmt: skip
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPEN_CLIP = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}  # fmt: skip
# SD 2 reads the last but one layer of OpenCLIP's tower: published files hold 24 layers, its pipelines 23.
PUBLISHED_LAYERS = 24


def unet_name(name: str, config: Mapping[str, Any]) -> str:
    """The CompVis name of a U-Net parameter, without `model.diffusion_model.`"""
    module, _, leaf = name.rpartition(".")
    if module in OUTSIDE:
        return f"{OUTSIDE[module]}.{leaf}"
    if found := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d+)\.(.*)", name):
        kind, place, rest = found.groups()
        return f"middle_block.{1 if kind == 'attentions' else 2 * int(place)}.{_inner(kind, rest)}"
    found = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", name)
    if found is None:
        raise KeyError(f"{name} has no place in CompVis' layout")
    side, level, kind, place, rest = found.groups()
    stride = config["layers_per_block"] + 1
    if kind == "downsamplers":
        return f"input_blocks.{(int(level) + 1) * stride}.0.op.{leaf}"
    if kind == "upsamplers":
        after = 2 if config["up_block_types"][int(level)].startswith("CrossAttn") else 1
        return f"output_blocks.{(int(level) + 1) * stride - 1}.{after}.conv.{leaf}"
    block = int(level) * stride + int(place) + (1 if side == "down" else 0)
    return f"{'input' if side == 'down' else 'output'}_blocks.{block}.{int(kind == 'attentions')}.{_inner(kind, rest)}"


def unet(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """U-Net weights under CompVis names."""
    return {unet_name(name, config): tensor for name, tensor in state.items()}


def _inner(kind: str, rest: str) -> str:
    first, _, last = rest.partition(".")
    return f"{RESNET[first]}.{last}" if kind == "resnets" else rest


def vae(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """VAE weights under CompVis names; the middle attention's matrices become 1×1 convolutions."""
    levels = len(config["block_out_channels"])
    found = {}
    for name, tensor in state.items():
        new = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        new = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", new)
        new = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", new)
        # CompVis counts the decoder's levels from the finest, diffusers in the order they are run.
        new = re.sub(r"up_blocks\.(\d+)\.resnets", lambda m: f"up.{levels - 1 - int(m[1])}.block", new)
        new = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", new)
        new = re.sub(r"mid_block\.resnets\.(\d+)", lambda m: f"mid.block_{int(m[1]) + 1}", new)
        if "mid_block.attentions.0." in new:
            inner, _, leaf = new.split("attentions.0.")[1].rpartition(".")
            new = f"{new.split('.')[0]}.mid.attn_1.{ATTENTION[inner]}.{leaf}"
            tensor = tensor[:, :, None, None] if tensor.ndim == 2 else tensor
        found[new] = tensor
    return found


def clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A text tower under the names of transformers 4, which every program knows."""
    return {canonical(f"text.{name}").removeprefix("text."): tensor for name, tensor in state.items()}


def open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A text tower under OpenCLIP names: q, k and v joined in this order, the projection transposed.

    SD 2's tower gets the unused last layer of published files back, as zeros: a residual block of zeros changes nothing
    should a program run it.
    """
    bare = {name.removeprefix("text_model."): tensor for name, tensor in state.items()}
    found = {
        "token_embedding.weight": bare.pop("embeddings.token_embedding.weight"),
        "positional_embedding": bare.pop("embeddings.position_embedding.weight"),
        "ln_final.weight": bare.pop("final_layer_norm.weight"),
        "ln_final.bias": bare.pop("final_layer_norm.bias"),
    }
    if "text_projection.weight" in bare:
        found["text_projection"] = bare.pop("text_projection.weight").T
    layers = 1 + max(int(name.split(".")[2]) for name in bare)
    for layer in range(layers):
        old, new = f"encoder.layers.{layer}.", f"transformer.resblocks.{layer}."
        for leaf in ("weight", "bias"):
            joined = [bare.pop(f"{old}self_attn.{which}_proj.{leaf}") for which in "qkv"]
            found[f"{new}attn.in_proj_{leaf}"] = torch.cat(joined)
            for inner, named in OPEN_CLIP.items():
                found[f"{new}{named}.{leaf}"] = bare.pop(f"{old}{inner}.{leaf}")
    if bare:
        raise KeyError(f"{', '.join(sorted(bare))} have no place in OpenCLIP's layout")
    if "text_projection" not in found and layers == PUBLISHED_LAYERS - 1:
        last = {name: tensor for name, tensor in found.items() if f"resblocks.{layers - 1}." in name}
        found |= {name.replace(f".{layers - 1}.", f".{layers}.", 1): torch.zeros_like(last[name]) for name in last}
    return found
