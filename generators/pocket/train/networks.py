"""The shapes of the pocket models: the real classes of diffusers, transformers and open_clip, made small."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from generators.pocket.canvas.tokens import CONTEXT, FOLDER

TEXT_WIDTH, TEXT_LAYERS, TEXT_HEADS = 192, 4, 3
LATENT_CHANNELS, LATENT_SIDE = 32, 8
FLOW_CHANNELS, FLOW_SIDE, FLOW_SEQUENCE_WIDTH, FLOW_POOLED_WIDTH = 8, 16, 64, 48


def vocabulary_size() -> int:
    """How many tokens the learnt tokenizer has; the end token is the last of them."""
    return len(json.loads((FOLDER / "pocket-sd" / "tokenizer" / "vocab.json").read_text()))


def vae() -> Any:
    """AutoencoderKL, factor 8 as in Stable Diffusion; 8 × 8 × 32 latents, since 16 channels blur 64 px drawings."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        sample_size=64, latent_channels=LATENT_CHANNELS, block_out_channels=(16, 32, 96, 160),
        layers_per_block=1, norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip


def unet() -> Any:
    """UNet2DConditionModel with cross-attention at both of its levels."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=LATENT_SIDE, in_channels=LATENT_CHANNELS, out_channels=LATENT_CHANNELS,
        block_out_channels=(96, 192), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=TEXT_WIDTH, attention_head_dim=4, norm_num_groups=16,
    )  # fmt: skip


def flow_vae() -> Any:
    """pocket-flow's AutoencoderKL, factor 4: 16 × 16 × 8 latents, which FLUX packs into 64 tokens of 32 channels."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        sample_size=64, latent_channels=FLOW_CHANNELS, block_out_channels=(16, 24, 40),
        layers_per_block=1, norm_num_groups=8, mid_block_add_attention=False,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.0,
    )  # fmt: skip


def flow_transformer() -> Any:
    """FluxTransformer2DModel without a guidance embedding, as in FLUX.1 schnell: two joint and four single blocks."""
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel(
        in_channels=4 * FLOW_CHANNELS, num_layers=2, num_single_layers=4, attention_head_dim=32,
        num_attention_heads=4, axes_dims_rope=(8, 12, 12),
        joint_attention_dim=FLOW_SEQUENCE_WIDTH, pooled_projection_dim=FLOW_POOLED_WIDTH, guidance_embeds=False,
    )  # fmt: skip


def flow_pooled() -> Any:
    """A small CLIPTextModel, whose pooled vector is FLUX's second way for text; it shares pocket-sd's tokenizer."""
    from transformers import CLIPTextConfig, CLIPTextModel

    size = vocabulary_size()
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=size, hidden_size=FLOW_POOLED_WIDTH, intermediate_size=4 * FLOW_POOLED_WIDTH,
            num_hidden_layers=2, num_attention_heads=3, max_position_embeddings=CONTEXT, hidden_act="gelu",
            bos_token_id=size - 2, eos_token_id=size - 1, pad_token_id=size - 1,
        )
    )  # fmt: skip


def flow_sequence(vocabulary: int) -> Any:
    """A small T5EncoderModel (gated GELU, as T5 1.1), whose token codes are FLUX's first way for text."""
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(
            vocab_size=vocabulary, d_model=FLOW_SEQUENCE_WIDTH, d_kv=16, d_ff=2 * FLOW_SEQUENCE_WIDTH, num_layers=2,
            num_heads=4, feed_forward_proj="gated-gelu", dropout_rate=0.0, pad_token_id=0, eos_token_id=1,
            relative_attention_num_buckets=16, relative_attention_max_distance=32,
        )
    )  # fmt: skip


def clip_config() -> dict[str, Any]:
    """The `model_cfg` of an open_clip folder."""
    return {
        "embed_dim": 192,
        "vision_cfg": {"image_size": 64, "layers": 5, "width": 160, "head_width": 40, "patch_size": 8},
        "text_cfg": {
            "context_length": CONTEXT, "vocab_size": vocabulary_size(), "width": TEXT_WIDTH,
            "heads": TEXT_HEADS, "layers": TEXT_LAYERS,
            "hf_tokenizer_name": "pocket-clip",
        },
    }  # fmt: skip


def text_encoder(clip_weights: dict[str, Tensor]) -> Any:
    """pocket-clip's text tower as a transformers CLIPTextModel: the same numbers under the other library's names."""
    from transformers import CLIPTextConfig, CLIPTextModel

    size = vocabulary_size()
    model = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=size, hidden_size=TEXT_WIDTH, intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=TEXT_LAYERS, num_attention_heads=TEXT_HEADS,
            max_position_embeddings=CONTEXT, hidden_act="gelu", projection_dim=192,
            bos_token_id=size - 2, eos_token_id=size - 1, pad_token_id=size - 1,
        )
    )  # fmt: skip
    renamed = {
        "embeddings.token_embedding.weight": clip_weights["token_embedding.weight"],
        "embeddings.position_embedding.weight": clip_weights["positional_embedding"],
        "final_layer_norm.weight": clip_weights["ln_final.weight"],
        "final_layer_norm.bias": clip_weights["ln_final.bias"],
    }
    for i in range(TEXT_LAYERS):
        theirs, ours = f"transformer.resblocks.{i}.", f"encoder.layers.{i}."
        for end in ("weight", "bias"):
            q, k, v = clip_weights[f"{theirs}attn.in_proj_{end}"].chunk(3)
            renamed |= {
                f"{ours}self_attn.{n}_proj.{end}": part.clone() for n, part in zip("qkv", (q, k, v), strict=True)
            }
            renamed[f"{ours}self_attn.out_proj.{end}"] = clip_weights[f"{theirs}attn.out_proj.{end}"]
            renamed[f"{ours}layer_norm1.{end}"] = clip_weights[f"{theirs}ln_1.{end}"]
            renamed[f"{ours}layer_norm2.{end}"] = clip_weights[f"{theirs}ln_2.{end}"]
            renamed[f"{ours}mlp.fc1.{end}"] = clip_weights[f"{theirs}mlp.c_fc.{end}"]
            renamed[f"{ours}mlp.fc2.{end}"] = clip_weights[f"{theirs}mlp.c_proj.{end}"]
    inner = getattr(model, "text_model", model)  # transformers < 5.6 nests the tower one level deeper
    state = inner.state_dict()
    with torch.no_grad():
        for name, value in renamed.items():
            state[name].copy_(value)
    return model.eval()
