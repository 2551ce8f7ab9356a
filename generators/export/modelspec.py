"""File metadata that other programs read: modelspec 1.0.1 and kohya's `ss_` keys. All values are strings."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save
from torch import Tensor

from erase import provenance
from erase.edit import Edit
from generators.export.published import is_published

if TYPE_CHECKING:
    from generators.export.format import Painter


def header(model: Painter, tensors: Mapping[str, Tensor], edit: Edit, *, adapter: str | None) -> dict[str, str]:
    """The modelspec block of a file with these tensors; `adapter` is "lora" for one."""
    side = "x".join(str(size * model.image_scale) for size in reversed(model.latent_shape[1:]))
    gone = ", ".join(provenance.erased_names(edit.about)) or "nothing"
    found = {
        "sai_model_spec": "1.0.1",
        "architecture": architecture(model) + (f"/{adapter}" if adapter else ""),
        # Adapters follow kohya's implementation, whole models the original one.
        "implementation": "https://github.com/kohya-ss/sd-scripts" if adapter else ORIGINAL[model.family == "xl"],
        "title": f"{PurePath(model.name).name} without {gone}",
        "description": f"Erased: {gone}, with {provenance.common_value(edit.about, 'method') or 'no method'}.",
        "date": datetime.date.today().isoformat(),
        "resolution": side,
        "prediction_type": None if model.family in FLOWS else "v" if predicts_v(model) else "epsilon",
        "license": model.licence or "",
        "hash_sha256": f"0x{digest(tensors)}",
    }
    return {f"modelspec.{key}": value for key, value in found.items() if value}


ORIGINAL = ("https://github.com/CompVis/stable-diffusion", "https://github.com/Stability-AI/generative-models")


# Flow transformers, which have no prediction type.
FLOWS = {"flux": "flux-1-dev", "sd3": "stable-diffusion-3-medium"}


def architecture(model: Painter) -> str:
    """The family as modelspec spells it; a model of other sizes is of none, and programs should not take it for one."""
    if not is_published(model):
        return "unpublished"
    if model.family in FLOWS:
        return FLOWS[model.family]
    if model.family == "sd2":
        return "stable-diffusion-v2-768-v" if predicts_v(model) else "stable-diffusion-v2-512"
    return "stable-diffusion-v1" if model.family == "sd1" else "stable-diffusion-xl-v1-base"


def kohya(model: Painter, tensors: Mapping[str, Tensor], rank: int, comment: str, title: str) -> dict[str, str]:
    """What sd-scripts writes into a LoRA and A1111 tells the family from; `title` is the alias that A1111 shows.

    Of two LoRAs with one alias A1111 finds neither, and prompts that name it stop erasing without a word.
    """
    base = {
        "sd1": "sd_v1", "sd2": "sd_v2_v" if predicts_v(model) else "sd_v2", "xl": "sdxl_base_v1-0",
        "flux": "flux1", "sd3": "sd3",
    }[model.family]  # fmt: skip
    stored = save(dict(tensors))
    body = stored[8 + int.from_bytes(stored[:8], "little") :]
    return {
        **({"ss_base_model_version": base} if is_published(model) else {}),
        "ss_v2": str(model.family == "sd2"),
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(rank),
        "ss_network_args": "{}",
        "ss_output_name": title,
        "ss_training_comment": comment,
        "sshs_model_hash": hashlib.sha256(body).hexdigest(),
        # The first programs with LoRAs told them apart by 64 KiB in the middle.
        "sshs_legacy_hash": hashlib.sha256(stored[0x100000:0x110000]).hexdigest()[:8],
    }


def predicts_v(model: Painter) -> bool:
    """Whether the U-Net predicts v rather than the noise."""
    return model.scheduler.config.get("prediction_type") == "v_prediction"


def digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 (hex) over the bytes of tensors in the order of their names."""
    total = hashlib.sha256()
    for _, tensor in sorted(tensors.items()):
        total.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
