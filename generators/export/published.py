"""Whether a model has the names and shapes of a published one, by which other programs know a file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from erase.edit import Edit, canonical

if TYPE_CHECKING:
    from generators.checkpoints.parts import Family

DOWN, CROSS = "DownBlock2D", "CrossAttnDownBlock2D"
UP, CROSS_UP = "UpBlock2D", "CrossAttnUpBlock2D"
UNETS: dict[Family, dict[str, Any]] = {
    "sd1": {
        "block_out_channels": (320, 640, 1280, 1280), "down_block_types": (CROSS, CROSS, CROSS, DOWN),
        "up_block_types": (UP, CROSS_UP, CROSS_UP, CROSS_UP), "cross_attention_dim": 768,
    },
    "sd2": {
        "block_out_channels": (320, 640, 1280, 1280), "down_block_types": (CROSS, CROSS, CROSS, DOWN),
        "up_block_types": (UP, CROSS_UP, CROSS_UP, CROSS_UP), "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True,
    },
    "xl": {
        "block_out_channels": (320, 640, 1280), "down_block_types": (DOWN, CROSS, CROSS),
        "up_block_types": (CROSS_UP, CROSS_UP, UP), "cross_attention_dim": 2048, "attention_head_dim": (5, 10, 20),
        "use_linear_projection": True, "transformer_layers_per_block": (1, 2, 10), "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
    },
}  # fmt: skip
# Width, layers and projection of the text towers.
TEXTS: dict[Family, tuple[tuple[int, int, int | None], ...]] = {
    "sd1": ((768, 12, None),), "sd2": ((1024, 23, None),), "xl": ((768, 12, None), (1280, 32, 1280))
}  # fmt: skip
# What the transformers of FLUX.1, of Stable Diffusion 3 and of 3.5 are told apart by.
TRANSFORMERS: dict[str, dict[str, tuple[int, ...]]] = {
    "flux": {"num_layers": (19,), "num_single_layers": (38,), "joint_attention_dim": (4096,)},
    "sd3": {"num_layers": (24, 38), "num_attention_heads": (24, 38), "joint_attention_dim": (4096,)},
}
AUTOENCODER = (128, 256, 512, 512)
WHY_NOT = (
    "A1111, Forge, ComfyUI and InvokeAI do not open it: they know SD 1, SD 2 and SDXL by their sizes. This model has "
    "others. ComfyUI may ignore the file without a word and draw the unedited base."
)


def is_published(model: Any) -> bool:
    """Whether all weights of a model, its VAE's included, have the names and shapes of a published one."""
    family = getattr(model, "family", None)
    if family in TRANSFORMERS:
        return all(model.parts.transformer.config[key] in sizes for key, sizes in TRANSFORMERS[family].items())
    if family not in UNETS:
        return False
    own = {canonical(name): tuple(part.shape) for name, part in model.network.named_parameters()}
    channels = model.vae_config.get("block_out_channels", ())
    return own == _shapes(family) and tuple(channels) == AUTOENCODER


def may_be_published(edit: Edit) -> bool:
    """Whether what an edit changes has names and shapes of a published model."""
    changed = {name: tuple(delta.shape) for name, delta in edit.deltas.items()}
    return any(_same(changed, family) for family in UNETS if _reads(changed, family))


def _same(changed: Mapping[str, tuple[int, ...]], family: Family) -> bool:
    known = _shapes(family)
    return all(known.get(name) == shape for name, shape in changed.items())


def _reads(changed: Mapping[str, tuple[int, ...]], family: Family) -> bool:
    """Whether the layers that read text have this family's width; it saves building networks that cannot fit."""
    width = UNETS[family]["cross_attention_dim"]
    return all(shape[1] == width for name, shape in changed.items() if name.endswith("attn2.to_k.weight"))


@cache
def _shapes(family: Family) -> dict[str, tuple[int, ...]]:
    """All parameters of a published family, by the names they have in an edit; built without memory."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    with torch.device("meta"):
        parts: dict[str, torch.nn.Module] = {"unet": UNet2DConditionModel(**UNETS[family])}
        for number, (width, layers, projection) in enumerate(TEXTS[family]):
            config = CLIPTextConfig(
                vocab_size=49408, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
                num_attention_heads=width // 64, projection_dim=projection or width,
            )  # fmt: skip
            kind = CLIPTextModelWithProjection if projection else CLIPTextModel
            parts[f"text{'_2' * number}"] = kind(config)
    named = ((f"{part}.{name}", held) for part, network in parts.items() for name, held in network.named_parameters())
    return {canonical(name): tuple(held.shape) for name, held in named}
