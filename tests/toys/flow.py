"""Toy pipelines of flow transformers with random weights: real classes, real tokenizers, a few hundred kilobytes."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel, T5Tokenizer

from tests.toys.pipelines import text_config, tokenizer

Family = Literal["flux-dev", "flux-schnell", "sd3", "sd3-no-t5"]
FLOWS: tuple[Family, ...] = ("flux-dev", "flux-schnell", "sd3", "sd3-no-t5")
LENGTH = 24
ABSENT: dict[str, Any] = {"text_encoder_3": None, "tokenizer_3": None}
WORDS = ("cat", "dog", "van", "style", "in", "a", "A", "image", "photo", "of", "painting", "Van", "person")


def t5_tokenizer() -> T5Tokenizer:
    """Unigram pieces: some words whole, every other one in letters."""
    letters = [chr(code) for code in range(33, 127)]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0)]
    pieces += [(f"▁{word}", -2.0) for word in WORDS] + [(letter, -6.0) for letter in letters]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=LENGTH)


def _t5(words: T5Tokenizer, width: int) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=len(words), d_model=width, d_kv=8, d_ff=2 * width, num_layers=2, num_heads=2,
            feed_forward_proj="gated-gelu", pad_token_id=0, eos_token_id=1,
        )
    )  # fmt: skip


def _vae() -> AutoencoderKL:
    """Two levels, so a picture is twice its latent's side."""
    return AutoencoderKL(
        sample_size=16, latent_channels=4, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        use_quant_conv=False, use_post_quant_conv=False, scaling_factor=0.36, shift_factor=0.11,
    )  # fmt: skip


def _flux(guided: bool) -> FluxPipeline:
    clip, words = tokenizer(), t5_tokenizer()
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=guided, shift=3.0 if guided else 1.0),
        vae=_vae(), text_encoder=CLIPTextModel(text_config(clip, 32, act="quick_gelu")), tokenizer=clip,
        text_encoder_2=_t5(words, 48), tokenizer_2=words,
        transformer=FluxTransformer2DModel(
            in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
            axes_dims_rope=(4, 6, 6), joint_attention_dim=48, pooled_projection_dim=32, guidance_embeds=guided,
        ),
    )  # fmt: skip


def _sd3(with_t5: bool) -> StableDiffusion3Pipeline:
    clip, clip_2, words = tokenizer(), tokenizer("!"), t5_tokenizer()
    return StableDiffusion3Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), vae=_vae(),
        text_encoder=CLIPTextModelWithProjection(text_config(clip, 32, act="quick_gelu")), tokenizer=clip,
        text_encoder_2=CLIPTextModelWithProjection(text_config(clip_2, 64, act="gelu")), tokenizer_2=clip_2,
        text_encoder_3=_t5(words, 128) if with_t5 else None, tokenizer_3=words if with_t5 else None,
        transformer=SD3Transformer2DModel(
            sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=128, caption_projection_dim=32, pooled_projection_dim=96,
            pos_embed_max_size=8,
        ),
    )  # fmt: skip


def pipeline(family: Family) -> Any:
    """A stock pipeline with random weights, the same in every process."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe = _flux(family == "flux-dev") if family.startswith("flux") else _sd3(family == "sd3")
        for module in pipe.components.values():
            for layer in module.modules() if isinstance(module, nn.Module) else ():
                if isinstance(layer, nn.Embedding):  # the libraries' start would make all words nearly one
                    nn.init.normal_(layer.weight)
        nn.init.normal_(pipe.transformer.proj_out.weight, std=0.1)
    return pipe


@cache
def folder(family: Family, place: Path) -> Path:
    """The pipeline as a diffusers folder, saved by diffusers itself."""
    home = place / family
    pipeline(family).save_pretrained(home)
    (home / "studio.json").write_text('{"steps": 4, "latent": 8}\n')
    return home


def stock(home: Path) -> DiffusionPipeline:
    """The folder as stock diffusers opens it."""
    # As its documentation says, Stable Diffusion 3 without T5 is opened by naming the absence.
    sd3 = "StableDiffusion3Pipeline" in (home / "model_index.json").read_text()
    absent = ABSENT if sd3 and not (home / "text_encoder_3").is_dir() else {}
    pipe = DiffusionPipeline.from_pretrained(home, local_files_only=True, **absent)
    pipe.set_progress_bar_config(disable=True)
    return pipe
