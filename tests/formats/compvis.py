"""The other direction, for tests: a diffusers pipeline under CompVis, Stability and OpenCLIP names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.formats.toys import Family

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


def unet(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """U-Net weights under CompVis names, without `model.diffusion_model.`"""
    stride = config["layers_per_block"] + 1
    return {_unet_name(name, stride, config): tensor for name, tensor in state.items()}


def _unet_name(name: str, stride: int, config: Mapping[str, Any]) -> str:
    module, _, leaf = name.rpartition(".")
    if module in OUTSIDE:
        return f"{OUTSIDE[module]}.{leaf}"
    if found := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name):
        kind, place, rest = found.groups()
        return f"middle_block.{1 if kind == 'attentions' else 2 * int(place)}.{_inner(kind, rest)}"
    found = re.fullmatch(r"(down|up)_blocks\.(\d)\.(resnets|attentions|downsamplers|upsamplers)\.(\d)\.(.*)", name)
    assert found, name
    side, level, kind, place, rest = found.groups()
    if kind == "downsamplers":
        return f"input_blocks.{(int(level) + 1) * stride}.0.op.{leaf}"
    if kind == "upsamplers":
        after = 2 if config["up_block_types"][int(level)].startswith("CrossAttn") else 1
        return f"output_blocks.{(int(level) + 1) * stride - 1}.{after}.conv.{leaf}"
    block = int(level) * stride + int(place) + (1 if side == "down" else 0)
    return f"{'input' if side == 'down' else 'output'}_blocks.{block}.{int(kind == 'attentions')}.{_inner(kind, rest)}"


def _inner(kind: str, rest: str) -> str:
    first, _, last = rest.partition(".")
    return f"{RESNET[first]}.{last}" if kind == "resnets" else rest


def vae(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """VAE weights under CompVis names; the middle attention's matrices become 1×1 convolutions."""
    levels = len(config["block_out_channels"])
    found = {}
    for name, tensor in state.items():
        new = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        new = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", new)
        new = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", new)
        new = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{levels - 1 - int(m[1])}.block", new)
        new = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", new)
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", new)
        if "mid_block.attentions.0." in new:
            inner, _, leaf = new.split("attentions.0.")[1].rpartition(".")
            new = f"{new.split('.')[0]}.mid.attn_1.{ATTENTION[inner]}.{leaf}"
            tensor = tensor[:, :, None, None] if tensor.ndim == 2 else tensor
        found[new] = tensor
    return found


def clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A text tower under the names of transformers 4."""
    return {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in state.items()}


def open_clip(state: Mapping[str, Tensor], *, unused_layer: bool) -> dict[str, Tensor]:
    """A text tower under OpenCLIP names: q, k, v joined, the projection transposed, an unused last layer if asked."""
    bare = {name.removeprefix("text_model."): tensor for name, tensor in state.items()}
    found = {
        "token_embedding.weight": bare.pop("embeddings.token_embedding.weight"),
        "positional_embedding": bare.pop("embeddings.position_embedding.weight"),
        "ln_final.weight": bare.pop("final_layer_norm.weight"),
        "ln_final.bias": bare.pop("final_layer_norm.bias"),
    }
    if "text_projection.weight" in bare:
        found["text_projection"] = bare.pop("text_projection.weight").T.contiguous()
    layers = 1 + max(int(name.split(".")[2]) for name in bare)
    for layer in range(layers):
        old, new = f"encoder.layers.{layer}.", f"transformer.resblocks.{layer}."
        for leaf in ("weight", "bias"):
            joined = [bare.pop(f"{old}self_attn.{which}_proj.{leaf}") for which in "qkv"]
            found[f"{new}attn.in_proj_{leaf}"] = torch.cat(joined)
            for inner, named in OPEN_CLIP.items():
                found[f"{new}{named}.{leaf}"] = bare.pop(f"{old}{inner}.{leaf}")
    assert not bare, bare.keys()
    if unused_layer:
        last = {name: tensor for name, tensor in found.items() if f"resblocks.{layers - 1}." in name}
        found |= {name.replace(f".{layers - 1}.", f".{layers}."): torch.zeros_like(last[name]) for name in last}
    return found


def single_file(path: Path, pipeline: Any, family: Family, metadata: Mapping[str, str] | None = None) -> Path:
    """Writes a pipeline as one checkpoint; 23 layers or not, SD 2's tower gets the unused one."""
    parts = {
        "model.diffusion_model.": unet(pipeline.unet.config, pipeline.unet.state_dict()),
        "first_stage_model.": vae(pipeline.vae.config, pipeline.vae.state_dict()),
    }
    first = pipeline.text_encoder.state_dict()
    if family == "sd2":
        parts["cond_stage_model.model."] = open_clip(first, unused_layer=True)
    elif family == "sd1":
        parts["cond_stage_model.transformer."] = clip(first)
    else:
        parts["conditioner.embedders.0.transformer."] = clip(first)
        second = pipeline.text_encoder_2.state_dict()
        parts["conditioner.embedders.1.model."] = open_clip(second, unused_layer=False)
    tensors = {prefix + name: tensor.contiguous() for prefix, part in parts.items() for name, tensor in part.items()}
    save_file(tensors, path, metadata=dict(metadata or {}))
    return path
