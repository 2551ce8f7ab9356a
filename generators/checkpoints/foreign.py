"""What a safetensors file is that cannot be loaded as a model, told from its names, and what its owner can do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from erase.errors import BadInput
from generators.checkpoints.tensors import Stored

MERGE = "Merge it into its base model with the program that made it, and give the merged model."
WHOLE = "Give the whole model that it belongs to."
# What is added to a model: how one of its names looks, what it is called, and the way on. The first that fits counts.
ADAPTERS = (
    (r"\.hada_w[12]_[ab]$|\.hada_w1_a", "a LoHa of LyCORIS", MERGE),
    (r"\.lokr_[wt][12]?", "a LoKr of LyCORIS", MERGE),
    (r"\.dora_scale$|lora_magnitude_vector", "a DoRA", MERGE),
    (r"\.oft_(blocks|diag)|\.oft_R\.", "an OFT adapter", MERGE),
    (r"^(lora_unet|lora_te\d?|lycoris)_.*\.diff(_b)?$", "a full-difference adapter of LyCORIS", MERGE),
    (r"\.lora_(up|down|mid)\.|\.lora_[AB]\.|_lora\.(up|down)\.|\.lora\.(up|down)\.", "a LoRA", MERGE),
    (r"^control_model\.|controlnet_|^input_hint_block\.|^zero_convs\.|^control_", "a ControlNet",
     "It steers a model and draws nothing itself; give the model."),
    (r"^ip_adapter\.|^image_proj\.", "an IP-Adapter", "It steers a model and draws nothing itself; give the model."),
    (r"^(adapter\.)?body\.\d+\.", "a T2I-Adapter", "It steers a model and draws nothing itself; give the model."),
    (r"^emb_params$|^clip_[lg]$|^string_to_param|^<[^>]+>$", "a textual inversion",
     "Load it into a diffusers pipeline, save the pipeline, and give that folder."),
)  # fmt: skip
# Single networks.
NETWORKS = (
    (r"^(first_stage_model\.)?(encoder|decoder)\.(conv_in|down|up|mid)", "a VAE alone", WHOLE),
    (r"^(text_model\.|encoder\.)?(embeddings\.token_embedding|transformer\.resblocks)|^text_model\.",
     "a text encoder alone", WHOLE),
    (r"^(model\.diffusion_model\.)?(down_blocks|input_blocks)\.0\.", "a U-Net alone", WHOLE),
)  # fmt: skip
# Whole models that are drawn in another way than this studio draws, by a name that only they have.
RELATIVES = (
    (r"^edm_vpred\.", "a CosXL model, which is drawn by EDM's noise levels"),
    (r"^edm_(mean|std)$", "a Playground 2.5 model, which is drawn by EDM's noise levels"),
    (r"^(noise_augmentor|embedder)\.", "an unCLIP model, which reads pictures beside words"),
    (r"^control_model\.", "a ControlNet together with its model"),
)
SCALES = re.compile(r"(^|\.)(scaled_fp8|(scale|input)_scale|scale_(weight|input)|weight_scale|absmax|quant_map)\b")
# What trainers leave in a checkpoint and no picture depends on.
LEFTOVERS = re.compile(
    r"^(model_ema\.|betas$|alphas_cumprod|sqrt_|log_one_minus_|posterior_|logvar$|lvlb_weights$|denoiser\.|global_step|"
    r"first_stage_model\.|loss\.|scale_factor$|v_pred$|ztsnr$)|\.logit_scale$|\.text_projection$|position_ids$|attn_mask$"
)


def adapter(names: Iterable[str]) -> tuple[str, str] | None:
    """What kind of addition to a model a file holds, and the way on; None where it holds none."""
    return _first(ADAPTERS, list(names))


def no_model(path: Path, names: Iterable[str]) -> BadInput | None:
    """The error for a file that is an adapter or one network of a model; None for anything unknown."""
    names = list(names)
    if found := adapter(names) or _first(NETWORKS, names):
        return BadInput(f"{path} is {found[0]}, not a whole model. {found[1]}")
    return None


def refuse_relatives(path: Path, stored: Mapping[str, Stored], read: tuple[str, ...]) -> None:
    """BadInput for a checkpoint whose tensors under the prefixes `read` would be misread as ordinary weights."""
    for pattern, what in RELATIVES:
        if any(re.search(pattern, name) for name in stored):
            raise BadInput(f"{path} is {what}. Give a Stable Diffusion that predicts noise or v from words.")
    scaled = next((name for name in stored if SCALES.search(name)), None)
    whole = next((name for name, held in stored.items() if name.startswith(read) and _integer(name, held)), None)
    if (odd := scaled or whole) is not None:
        raise BadInput(
            f"{path} is quantised: {odd} belongs to weights that are stored as scaled or whole numbers. "
            "Get the fp16, bf16 or fp32 file that it was made from."
        )


def unread(stored: Mapping[str, Stored], read: tuple[str, ...]) -> list[str]:
    """The names of tensors that belong to no part of a model and are no known leftovers of training."""
    return sorted(name for name in stored if not name.startswith(read) and not LEFTOVERS.search(name))


def _integer(name: str, held: Stored) -> bool:
    return held.dtype.startswith(("I", "U", "BOOL")) and not LEFTOVERS.search(name)


def _first(kinds: tuple[tuple[str, str, str], ...], names: list[str]) -> tuple[str, str] | None:
    return next(((what, way) for pattern, what, way in kinds if any(re.search(pattern, name) for name in names)), None)
