"""Toy pipelines of each family with random weights: real classes, real tokenizers, a few hundred kilobytes."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizerFast

Family = Literal["sd1", "sd2", "xl"]
FAMILIES: tuple[Family, ...] = ("sd1", "sd2", "xl")
# Words with merges of their own; every other word is split into pieces or letters.
# Earlier words win where they compete for letters.
WORDS = ("van", "a", "an", "image", "in", "style", "of", "photo", "cat", "dog", "painting", "person", "wearing")
PIECES = ("go", "jelly", "fi")
NOISE: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def tokenizer(pad: str = "<|endoftext|>") -> CLIPTokenizerFast:
    """A byte-pair CLIP tokenizer whose merges spell WORDS whole and leave "jellyfish" and "gogh" in several tokens."""
    merges: list[tuple[str, str]] = []
    for word in (*WORDS, *PIECES):
        symbols = [*word[:-1], word[-1] + ("</w>" if word in WORDS else "")]
        while len(symbols) > 1:
            merges.append((symbols[0], symbols[1]))
            symbols[:2] = [symbols[0] + symbols[1]]
    merges = list(dict.fromkeys(merges))
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    symbols = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    vocab = {symbol: number for number, symbol in enumerate([*symbols, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizerFast(vocab=vocab, merges=merges, pad_token=pad, model_max_length=77)


def text_config(words: CLIPTokenizerFast, width: int, *, act: str, projection: int | None = None) -> CLIPTextConfig:
    """Two layers, heads of at most 64 channels as in every published tower."""
    return CLIPTextConfig(
        vocab_size=len(words), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
        num_attention_heads=max(width // 64, 1), max_position_embeddings=77, hidden_act=act,
        projection_dim=projection or width, bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )  # fmt: skip


def unet_config(family: Family) -> dict[str, Any]:
    """Two levels of 32 and 64 channels, one layer each; text is read at the upper level, in XL at the lower one."""
    config: dict[str, Any] = {
        "sample_size": 8, "block_out_channels": (32, 64), "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }  # fmt: skip
    if family == "sd1":
        return config | {"cross_attention_dim": 32, "attention_head_dim": 8}
    config |= {"use_linear_projection": True, "attention_head_dim": (1, 1)}
    if family == "sd2":
        return config | {"cross_attention_dim": 64}
    return config | {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2), "cross_attention_dim": 96, "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 64 + 6 * 8,
    }  # fmt: skip


def vae(family: Family) -> AutoencoderKL:
    """Two levels, so a picture is twice its latent's side."""
    return AutoencoderKL(
        block_out_channels=(32, 64), layers_per_block=1, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        scaling_factor=0.13025 if family == "xl" else 0.18215, force_upcast=family == "xl",
    )  # fmt: skip


def pipeline(family: Family, seed: int = 0) -> DiffusionPipeline:
    """A stock pipeline with random weights; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet, decoder = UNet2DConditionModel(**unet_config(family)), vae(family)
        words = tokenizer()
        if family == "xl":
            second = tokenizer("!")
            made = StableDiffusionXLPipeline(
                vae=decoder, unet=unet, tokenizer=words, tokenizer_2=second, add_watermarker=False,
                text_encoder=CLIPTextModel(text_config(words, 32, act="quick_gelu")),
                text_encoder_2=CLIPTextModelWithProjection(text_config(second, 64, act="gelu", projection=64)),
                scheduler=EulerDiscreteScheduler(**NOISE, timestep_spacing="leading"),
            )  # fmt: skip
        else:
            words = words if family == "sd1" else tokenizer("!")
            width, act = (32, "quick_gelu") if family == "sd1" else (64, "gelu")
            scheduler = (
                PNDMScheduler(**NOISE, skip_prk_steps=True)
                if family == "sd1"
                else DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False, prediction_type="v_prediction")
            )
            made = StableDiffusionPipeline(
                vae=decoder, unet=unet, tokenizer=words, text_encoder=CLIPTextModel(text_config(words, width, act=act)),
                scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
            )  # fmt: skip
        _listening(made.text_encoder, unet)
        if family == "xl":
            _listening(made.text_encoder_2, unet)
    made.set_progress_bar_config(disable=True)
    return made


def _listening(tower: torch.nn.Module, unet: torch.nn.Module) -> None:
    """Words far apart and a U-Net that heeds them: freshly made, every prompt draws nearly the same picture."""
    with torch.no_grad():
        for name, parameter in tower.named_parameters():
            if name.endswith("token_embedding.weight"):
                parameter.copy_(torch.randn(parameter.shape))
        for name, parameter in unet.named_parameters():
            if name.endswith(("attn2.to_v.weight", "attn2.to_k.weight")):
                parameter.copy_(torch.randn(parameter.shape) * 0.5)


@cache
def _saved(family: Family, seed: int) -> dict[str, bytes]:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as temporary:
        pipeline(family, seed).save_pretrained(temporary)
        files = [path for path in Path(temporary).rglob("*") if path.is_file()]
        return {path.relative_to(temporary).as_posix(): path.read_bytes() for path in files}


def toy_folder(folder: Path, family: Family = "sd1", seed: int = 0) -> Path:
    """Writes a toy pipeline of a family as a diffusers folder and returns it; made once per process and seed."""
    for name, content in _saved(family, seed).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def patch_json(path: Path, **changes: Any) -> None:
    """Changes some keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
