"""What differs between the families of flow transformers: how text and latents enter, and where the codes are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from erase.model import Codes
from generators.flow.text import POOLED, SEQUENCE, FluxReading, JointReading, SD3Reading

# Where text enters: of each transformer class, by code space, the first linear layers that read its codes. Deeper
# layers read codes that are already mixed with the picture and the time, so a closed form is exact at these alone.
READERS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "FluxTransformer2DModel": {SEQUENCE: ("context_embedder",), POOLED: ("time_text_embed.text_embedder.linear_1",)},
    "SD3Transformer2DModel": {SEQUENCE: ("context_embedder",), POOLED: ("time_text_embed.text_embedder.linear_1",)},
}


@dataclass(frozen=True)
class Family:
    """One family: its pipeline and transformer classes in diffusers, its text encoders, and how they are called.

    `side` is the latents' height and width where a folder names none; `call` says what the transformer predicts of
    latents [n c h w] at noise levels [n], with an embedded guidance where the transformer takes one.
    """

    name: str
    pipeline: str
    transformer: str
    encoders: tuple[str, ...]
    optional: tuple[str, ...]
    reading: Callable[[Any, Mapping[str, Any]], JointReading]
    call: Callable[[Any, Tensor, Tensor, Codes, float], Tensor]
    channels: Callable[[Any], int]
    side: Callable[[Any], int]
    patch: Callable[[Any], int]


def packed(latents: Tensor) -> Tensor:
    """Latents [n c h w] as FLUX's tokens [n h·w/4 4·c]."""
    n, c, h, w = latents.shape
    return latents.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(n, h * w // 4, 4 * c)


def unpacked(tokens: Tensor, height: int, width: int) -> Tensor:
    """FLUX's tokens [n h·w/4 4·c] as latents [n c h w]."""
    n, _, wide = tokens.shape
    blocks = tokens.view(n, height // 2, width // 2, wide // 4, 2, 2)
    return blocks.permute(0, 3, 1, 4, 2, 5).reshape(n, wide // 4, height, width)


def positions(height: int, width: int) -> Tensor:
    """FLUX's position ids [token 3] of a rectangle of packed tokens."""
    rows = torch.arange(height).repeat_interleave(width)
    return torch.stack([torch.zeros(height * width), rows, torch.arange(width).repeat(height)], 1)


def _flux(transformer: Any, z: Tensor, level: Tensor, codes: Codes, guidance: float) -> Tensor:
    height, width = z.shape[-2:]
    embedded = z.new_full((len(z),), guidance, dtype=torch.float32) if transformer.config.guidance_embeds else None
    said = transformer(
        hidden_states=packed(z),
        timestep=level.to(z.dtype),
        guidance=embedded,
        pooled_projections=codes.pooled.to(z.dtype) if codes.pooled is not None else None,
        encoder_hidden_states=codes.tokens.to(z.dtype),
        txt_ids=torch.zeros(codes.tokens.shape[1], 3, device=z.device, dtype=z.dtype),
        img_ids=positions(height // 2, width // 2).to(z.device, z.dtype),
        return_dict=False,
    )[0]
    return unpacked(said, height, width)


def _sd3(transformer: Any, z: Tensor, level: Tensor, codes: Codes, guidance: float) -> Tensor:
    return transformer(
        hidden_states=z,
        timestep=1000 * level,
        encoder_hidden_states=codes.tokens.to(z.dtype),
        pooled_projections=codes.pooled.to(z.dtype) if codes.pooled is not None else None,
        return_dict=False,
    )[0]


def _longest(tokenizer: Any, most: int) -> int:
    return min(int(tokenizer.model_max_length), most)


def _read_flux(parts: Any, config: Mapping[str, Any]) -> JointReading:
    tokenizers = (parts["tokenizer"], parts["tokenizer_2"])
    # schnell reads half of what dev does; a folder's own tokenizer may say less.
    most = 512 if config["guidance_embeds"] else 256
    lengths = (_longest(tokenizers[0], 77), _longest(tokenizers[1], most))
    return FluxReading((parts["text_encoder"], parts["text_encoder_2"]), tokenizers, lengths)


def _read_sd3(parts: Any, config: Mapping[str, Any]) -> JointReading:
    names = ["", "_2", "_3"] if parts.get("text_encoder_3") is not None else ["", "_2"]
    tokenizers = tuple(parts[f"tokenizer{name}"] for name in names)
    clip = _longest(tokenizers[0], 77)
    lengths = (clip, clip, *(_longest(each, 256) for each in tokenizers[2:]))
    texts = tuple(parts[f"text_encoder{name}"] for name in names)
    return SD3Reading(texts, tokenizers, lengths, width=config["joint_attention_dim"])


FLUX = Family(
    name="flux",
    pipeline="FluxPipeline",
    transformer="FluxTransformer2DModel",
    encoders=("text_encoder", "text_encoder_2"),
    optional=(),
    reading=_read_flux,
    call=_flux,
    channels=lambda config: config["in_channels"] // 4,
    side=lambda config: 128,
    patch=lambda config: 2,
)
SD3 = Family(
    name="sd3",
    pipeline="StableDiffusion3Pipeline",
    transformer="SD3Transformer2DModel",
    encoders=("text_encoder", "text_encoder_2"),
    optional=("text_encoder_3",),
    reading=_read_sd3,
    call=_sd3,
    channels=lambda config: config["in_channels"],
    side=lambda config: config["sample_size"],
    patch=lambda config: config["patch_size"],
)
FAMILIES: Mapping[str, Family] = {family.pipeline: family for family in (FLUX, SD3)}
