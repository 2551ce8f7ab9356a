"""Configs from tensor shapes: what a CompVis or Stability checkpoint says about itself without saying it.

Three things leave no trace in a shape and follow the family: attention heads (8 in SD 1, 64 channels each in SD 2 and
XL), the 32 groups of every normalisation, and the activation of the text tower. A config folder overrides all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import CLIPTextConfig

from erase.errors import BadInput
from generators.checkpoints.parts import Family

Shapes = Mapping[str, tuple[int, ...]]

SAMPLE_SIZE: dict[Family, int] = {"sd1": 64, "sd2": 96, "xl": 128}


def under(shapes: Shapes, prefix: str) -> dict[str, tuple[int, ...]]:
    """The shapes whose names start with a prefix, without it."""
    return {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}


def count(shapes: Shapes, prefix: str) -> int:
    """How many different numbers follow a prefix that ends in a dot."""
    return len({name.removeprefix(prefix).split(".")[0] for name in shapes if name.startswith(prefix)})


def unet_config(shapes: Shapes, family: Family, sample_size: int) -> dict[str, Any]:
    """The config of the U-Net whose CompVis names (without `model.diffusion_model.`) and shapes these are."""
    levels = _levels(shapes)
    channels = [level["channels"] for level in levels]
    depths = [max(level["depths"]) for level in levels]
    if len({len(level["depths"]) for level in levels}) > 1 or any(len(set(level["depths"])) > 1 for level in levels):
        raise BadInput("The U-Net's levels differ in their number of layers; pass its own config folder with --config.")
    readers = [shape[1] for name, shape in shapes.items() if name.endswith("attn2.to_k.weight")]
    flat = [len(shape) == 2 for name, shape in shapes.items() if name.endswith("1.proj_in.weight")]
    if not readers:
        raise BadInput("This U-Net reads no text, so it is not a text-to-image model.")
    depth = [max(d, 1) for d in depths]
    config: dict[str, Any] = {
        "sample_size": sample_size,
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "out_channels": shapes["out.2.weight"][0],
        "block_out_channels": channels,
        "layers_per_block": len(levels[0]["depths"]),
        "down_block_types": ["CrossAttnDownBlock2D" if d else "DownBlock2D" for d in depths],
        "up_block_types": ["CrossAttnUpBlock2D" if d else "UpBlock2D" for d in reversed(depths)],
        "cross_attention_dim": readers[0],
        "attention_head_dim": 8 if family == "sd1" else [max(c // 64, 1) for c in channels],
        "use_linear_projection": flat[0],
        "transformer_layers_per_block": depth[0] if len(set(depth)) == 1 else depth,
    }
    if family == "sd2":
        config["upcast_attention"] = True  # SD 2.1's attention overflows in fp16 otherwise
    if "label_emb.0.0.weight" in shapes:
        config |= {
            "addition_embed_type": "text_time",
            "projection_class_embeddings_input_dim": shapes["label_emb.0.0.weight"][1],
        }
    return config


def _levels(shapes: Shapes) -> list[dict[str, Any]]:
    """Per resolution: its channels and the transformer depth of each of its layers (0 where there is no attention)."""
    levels: list[dict[str, Any]] = [{"channels": 0, "depths": []}]
    for block in range(1, count(shapes, "input_blocks.")):
        if f"input_blocks.{block}.0.op.weight" in shapes:
            levels.append({"channels": 0, "depths": []})
            continue
        resnet = shapes.get(f"input_blocks.{block}.0.in_layers.2.weight")
        if resnet is None:
            raise BadInput(f"The U-Net's input_blocks.{block} is neither a residual block nor a downsampler.")
        levels[-1]["channels"] = resnet[0]
        levels[-1]["depths"].append(count(shapes, f"input_blocks.{block}.1.transformer_blocks."))
    if not all(level["depths"] for level in levels):
        raise BadInput("The U-Net in this file has a level without layers; it is damaged or of an unknown kind.")
    return levels


def vae_config(shapes: Shapes, family: Family) -> dict[str, Any]:
    """The config of the autoencoder whose CompVis names (without `first_stage_model.`) and shapes these are."""
    depth = count(shapes, "encoder.down.")
    channels = [shapes[f"encoder.down.{level}.block.0.conv1.weight"][0] for level in range(depth)]
    return {
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "block_out_channels": channels,
        "layers_per_block": count(shapes, "encoder.down.0.block."),
        "down_block_types": ["DownEncoderBlock2D"] * depth,
        "up_block_types": ["UpDecoderBlock2D"] * depth,
        "scaling_factor": 0.13025 if family == "xl" else 0.18215,
        "force_upcast": family == "xl",
    }


def clip_config(shapes: Shapes) -> CLIPTextConfig:
    """The config of OpenAI's text tower from transformers names (without `text_model.`)."""
    width = shapes["embeddings.token_embedding.weight"][1]
    layers = count(shapes, "encoder.layers.")
    return _text_config(
        shapes["embeddings.token_embedding.weight"][0],
        shapes["embeddings.position_embedding.weight"][0],
        width,
        shapes["encoder.layers.0.mlp.fc1.weight"][0],
        layers,
        act="quick_gelu",
        projection=width,
    )


def open_clip_config(shapes: Shapes, *, layers: int) -> CLIPTextConfig:
    """The config of an OpenCLIP text tower from its names; `layers` because SD 2 does not use the last one."""
    width = shapes["token_embedding.weight"][1]
    return _text_config(
        shapes["token_embedding.weight"][0],
        shapes["positional_embedding"][0],
        width,
        shapes["transformer.resblocks.0.mlp.c_fc.weight"][0],
        layers,
        act="gelu",
        projection=shapes.get("text_projection", (width, width))[1],
    )


def _text_config(
    words: int, positions: int, width: int, inner: int, layers: int, *, act: str, projection: int
) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=words,
        max_position_embeddings=positions,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=max(width // 64, 1),
        hidden_act=act,
        projection_dim=projection,
        # CLIP's vocabularies end with the start and the end token.
        bos_token_id=words - 2,
        eos_token_id=words - 1,
        pad_token_id=words - 1,
    )
